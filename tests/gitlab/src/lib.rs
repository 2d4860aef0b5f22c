//! A GitLab to test runners against.
