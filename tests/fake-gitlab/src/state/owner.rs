//! Projects and groups: what runners belong to.

/// A project with its registration token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The project's id.
    pub id: u64,
    /// The full path, such as `gitlab-org/gitlab`.
    pub path: String,
    /// The registration token of its runners.
    pub registration_token: String,
    /// Whether the registration token may be used.
    pub allows_registration: bool,
}

/// A group with its registration token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's id.
    pub id: u64,
    /// The full path, such as `gitlab-org`.
    pub path: String,
    /// The registration token of its runners.
    pub registration_token: String,
    /// Whether the registration token may be used.
    pub allows_registration: bool,
}
