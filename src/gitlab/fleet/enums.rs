//! Enums of the management API. They are open: any release may add a name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that a filter does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not one of {known}")]
pub struct UnknownName {
    name: String,
    known: String,
}

/// Declares an enum with its names. Deserializing accepts any name, `FromStr` only the known ones.
macro_rules! open_enum {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $variant:ident = $wire_name:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$meaning])* $variant,)+
            /// A name that this client does not know.
            Other(String),
        }

        impl $name {
            /// The known names.
            pub const KNOWN: &[&str] = &[$($wire_name),+];

            /// The name in the API.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $wire_name,)+
                    Self::Other(name) => name,
                }
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                match name.as_str() {
                    $($wire_name => Self::$variant,)+
                    _ => Self::Other(name),
                }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text.to_owned().into() {
                    Self::Other(name) => Err(UnknownName { name, known: Self::KNOWN.join(", ") }),
                    known => Ok(known),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

open_enum! {
    /// The type of a runner. Source: docs/api/runners, `runner_type`.
    RunnerType {
        /// An instance runner, available to all projects.
        Instance = "instance_type",
        /// A group runner, available to the group and its subgroups.
        Group = "group_type",
        /// A project runner, available to the projects it is assigned to.
        Project = "project_type",
    }
}

open_enum! {
    /// The status of a runner or manager. Source: docs/api/runners, `status`.
    ContactStatus {
        /// Seen within the last two hours; one hour in old releases.
        Online = "online",
        /// Last seen longer ago than that.
        Offline = "offline",
        /// Last seen more than seven days ago, before 17.1 three months. Since 15.0.
        Stale = "stale",
        /// Never seen. Since 15.0; before that `not_connected`.
        NeverContacted = "never_contacted",
        /// Paused; replaces the other values. As a filter deprecated since 14.8.
        Paused = "paused",
        /// Not paused. Only a filter, deprecated since 14.8.
        Active = "active",
        /// Never seen, up to 14.x.
        NotConnected = "not_connected",
    }
}

open_enum! {
    /// The deprecated filter `scope` of lists. Source: docs/api/runners, `scope`.
    DeprecatedScope {
        /// Runners that are not paused.
        Active = "active",
        /// Paused runners.
        Paused = "paused",
        /// Online runners.
        Online = "online",
        /// Offline runners.
        Offline = "offline",
        /// Group and project runners; only for the lists of all runners and of a project.
        Specific = "specific",
        /// Instance runners; only for the lists of all runners and of a project.
        Shared = "shared",
    }
}

open_enum! {
    /// Which refs a runner runs jobs for, as the server reports it. Source: docs/api/runners, `access_level`.
    RefAccess {
        /// All refs.
        NotProtected = "not_protected",
        /// Protected branches and tags only.
        RefProtected = "ref_protected",
    }
}

open_enum! {
    /// Whether a runner or manager is running a job. Since 18.2. Source: GitLab's changelog 18.2.
    JobExecution {
        /// No job is running.
        Idle = "idle",
        /// A job is running.
        Active = "active",
    }
}

open_enum! {
    /// The status of a job. Source: docs/api/jobs, `status`.
    JobStatus {
        /// Created, waiting for an earlier stage.
        Created = "created",
        /// Waiting for a resource group.
        WaitingForResource = "waiting_for_resource",
        /// Waiting for its prerequisites.
        Preparing = "preparing",
        /// Waiting for an external system.
        WaitingForCallback = "waiting_for_callback",
        /// Waiting for a runner.
        Pending = "pending",
        /// Running.
        Running = "running",
        /// Succeeded.
        Success = "success",
        /// Failed.
        Failed = "failed",
        /// Being canceled by a user.
        Canceling = "canceling",
        /// Canceled by a user.
        Canceled = "canceled",
        /// Skipped.
        Skipped = "skipped",
        /// Waiting to be started by a user.
        Manual = "manual",
        /// Waiting for its start time.
        Scheduled = "scheduled",
    }
}

open_enum! {
    /// The order of a list. Source: docs/api/runners, `sort`.
    Sort {
        /// Oldest first.
        Ascending = "asc",
        /// Newest first, the default.
        Descending = "desc",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_read_but_filters_accept_only_known_ones() {
        let read: ContactStatus = serde_json::from_str("\"hibernating\"").unwrap();
        assert_eq!(read, ContactStatus::Other("hibernating".to_owned()));
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"hibernating\"");
        let error = "hibernating".parse::<ContactStatus>().unwrap_err().to_string();
        assert!(error.starts_with("`hibernating` is not one of online, offline, stale, never_contacted"), "{error}");
        for name in ContactStatus::KNOWN {
            assert_eq!(name.parse::<ContactStatus>().unwrap().as_str(), *name);
        }
    }
}
