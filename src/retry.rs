//! (room: retry)
