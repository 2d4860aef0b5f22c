//! Which of two clocks shows the time of a server.

use serde::{Deserialize, Serialize};

/// A clock that shows the server's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// The `Date` of the server's answers.
    Date,
    /// This machine's clock.
    Local,
}

/// Which clock is believed, for as long as the two differ by as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belief {
    /// The clock.
    pub witness: Witness,
    /// This machine's clock minus the `Date`.
    pub ahead_millis: i64,
}
