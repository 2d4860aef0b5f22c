//! The words of the management API, open at the end: a release may add one at any time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A word that is none of those that a filter takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not one of {known}")]
pub struct UnknownName {
    word: String,
    known: String,
}

/// Makes an enumeration of words that is read from any text, and from a person's only if it is known.
macro_rules! enums {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$meaning])* $variant,)+
            /// A word of a release that this client does not know.
            Other(String),
        }

        impl $name {
            /// The words that are known.
            pub const KNOWN: &[&str] = &[$($word),+];

            /// The word that goes over the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text.to_owned().into() {
                    Self::Other(word) => Err(UnknownName { word, known: Self::KNOWN.join(", ") }),
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

enums! {
    /// Whose jobs a runner takes. Source: docs/api/runners, `runner_type`.
    RunnerType {
        /// Everybody's: a shared runner.
        Instance = "instance_type",
        /// Those of a group and what is below it.
        Group = "group_type",
        /// Those of the projects it is assigned to.
        Project = "project_type",
    }
}

enums! {
    /// How a runner is. Source: docs/api/runners, `status`.
    ContactStatus {
        /// Seen within the last two hours; one hour in old releases.
        Online = "online",
        /// Not seen for longer than that.
        Offline = "offline",
        /// Not seen for seven days, before 17.1 for three months. Since 15.0.
        Stale = "stale",
        /// Never seen. Since 15.0; before that `not_connected`.
        NeverContacted = "never_contacted",
        /// Takes no jobs; said in place of the others. As a filter deprecated since 14.8.
        Paused = "paused",
        /// Takes jobs. Only a filter, deprecated since 14.8.
        Active = "active",
        /// Never seen, up to 14.x.
        NotConnected = "not_connected",
    }
}

enums! {
    /// The deprecated filter of lists. Source: docs/api/runners, `scope`.
    DeprecatedScope {
        /// Those that take jobs.
        Active = "active",
        /// Those that do not.
        Paused = "paused",
        /// Those seen lately.
        Online = "online",
        /// Those not seen lately.
        Offline = "offline",
        /// Those of groups and projects; only where all runners or a project's are listed.
        Specific = "specific",
        /// Those of the instance; only where all runners or a project's are listed.
        Shared = "shared",
    }
}

enums! {
    /// Which refs a runner takes jobs of. Source: docs/api/runners, `access_level`.
    RefAccess {
        /// All of them.
        NotProtected = "not_protected",
        /// Protected branches and tags only.
        RefProtected = "ref_protected",
    }
}

enums! {
    /// Whether a runner or a manager works on a job right now. Since 18.2. Source: GitLab's changelog 18.2.
    JobExecution {
        /// It does not.
        Idle = "idle",
        /// It does.
        Active = "active",
    }
}

enums! {
    /// How a job is. Source: docs/api/jobs, `status`.
    JobStatus {
        /// Made, and waiting for an earlier stage.
        Created = "created",
        /// Waits for a resource group.
        WaitingForResource = "waiting_for_resource",
        /// Waits for what it needs.
        Preparing = "preparing",
        /// Waits for an outside system.
        WaitingForCallback = "waiting_for_callback",
        /// Waits for a runner.
        Pending = "pending",
        /// Is being worked on.
        Running = "running",
        /// Ended well.
        Success = "success",
        /// Ended badly.
        Failed = "failed",
        /// Is being ended by somebody.
        Canceling = "canceling",
        /// Was ended by somebody.
        Canceled = "canceled",
        /// Was left out.
        Skipped = "skipped",
        /// Waits for somebody to start it.
        Manual = "manual",
        /// Waits for its time.
        Scheduled = "scheduled",
    }
}

enums! {
    /// Which way a list goes. Source: docs/api/runners, `sort`.
    Sort {
        /// The oldest first.
        Ascending = "asc",
        /// The newest first, which is the default.
        Descending = "desc",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_whatever_it_is_and_asked_for_only_if_known() {
        let read: ContactStatus = serde_json::from_str("\"hibernating\"").unwrap();
        assert_eq!(read, ContactStatus::Other("hibernating".to_owned()));
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"hibernating\"");
        let error = "hibernating".parse::<ContactStatus>().unwrap_err().to_string();
        assert!(error.starts_with("`hibernating` is not one of online, offline, stale, never_contacted"), "{error}");
        for word in ContactStatus::KNOWN {
            assert_eq!(word.parse::<ContactStatus>().unwrap().as_str(), *word);
        }
    }
}
