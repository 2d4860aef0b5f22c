//! The life of a GitLab runner's credential.
