//! The typed client of GitLab's Runners API.
