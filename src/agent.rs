//! (room: agent)
