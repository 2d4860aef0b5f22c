//! (room: signals)
