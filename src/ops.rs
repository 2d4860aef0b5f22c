//! What is done to server and disk, in the order that survives a crash.

mod enrollment;

pub use enrollment::{Enrollment, Seed, ServerAccess};
