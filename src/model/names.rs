//! Enums whose variants have one fixed name each in logs, JSON, metrics and records.

use serde::{Deserialize, Serialize};

/// Declares an enum together with its names: `as_str`, `from_name`, `Display` and serde all use this one list.
///
/// Deserializing an unknown name is an error, unless the list ends with `else VARIANT`.
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident { $($(#[$variant_meta:meta])* $variant:ident = $name:literal,)+ }
        $(else $fallback:ident)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$variant_meta])* $variant,)+ }

        impl $enum {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The variant's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The variant of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }

        impl ::std::fmt::Display for $enum {
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl ::serde::Serialize for $enum {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $enum {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <::std::borrow::Cow<'de, str> as ::serde::Deserialize>::deserialize(deserializer)?;
                let known = Self::from_name(&name);
                $(let known = known.or(Some(Self::$fallback));)?
                known.ok_or_else(|| ::serde::de::Error::unknown_variant(&name, &[$($name,)+]))
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// The state of a runner, as reported.
    #[derive(Default)]
    pub enum StateName {
        /// An enrollment without a runner.
        Unregistered = "unregistered",
        /// The credential is valid as far as known.
        Active = "active",
        /// A reset was sent and its answer was lost.
        Uncertain = "uncertain",
        /// The server refuses the token.
        Rejected = "rejected",
        /// The token is valid, but the server will not renew it.
        NotRenewable = "not_renewable",
        /// Needs a human.
        Failed = "failed",
        /// Unregistered by the agent.
        Retired = "retired",
        /// The token has expired, whether or not the server was asked since. Only `list`, `status` and `plan` report it.
        Expired = "expired",
        /// Its entry cannot be used. Only `list` reports it.
        Unusable = "unusable",
        /// Not yet verified with the server.
        #[default]
        Unknown = "unknown",
    }
    else Unknown
}

named_enum! {
    /// Something that `ops` can do for a runner.
    pub enum Step {
        /// Register the runner.
        Register = "register",
        /// Check whether the server accepts the token.
        Verify = "verify",
        /// Replace the token.
        Rotate = "rotate",
        /// Write a credential that config.toml does not hold yet.
        Save = "save",
        /// Replace a refused token by the runner's id, with an access token.
        ResetById = "reset_by_id",
        /// Register the runner again, into the same entry.
        RegisterAgain = "register_again",
        /// Delete the runner, or this machine's manager of it.
        Unregister = "unregister",
    }
}

named_enum! {
    /// The reason for a step.
    pub enum Why {
        /// The enrollment has no runner yet.
        NotRegistered = "not_registered",
        /// The regular check is due.
        Interval = "interval",
        /// The share of the token's life has passed.
        ShareOfLife = "share_of_life",
        /// Most of the token's life has passed, and nothing else has rotated it.
        LastResort = "last_resort",
        /// The last request failed.
        Retry = "retry",
        /// A refusal needs to be confirmed.
        ConfirmRefusal = "confirm_refusal",
        /// A reset's answer was lost.
        SettleLostAnswer = "settle_lost_answer",
        /// A rejected or failed runner is checked again.
        LookAgain = "look_again",
        /// config.toml does not hold the credential.
        Unsaved = "unsaved",
        /// The token is refused, and something can be done about it.
        Recovery = "recovery",
        /// A person or a stop asks for it.
        Requested = "requested",
        /// This machine's manager was deleted at a stop: the verification makes it again.
        Revive = "revive",
    }
}

named_enum! {
    /// When a runner's token is rotated.
    pub enum RotationRule {
        /// After a share of its life.
        ShareOfLife = "share_of_life",
        /// Once most of its life has passed, if nothing else has rotated it.
        LastResort = "last_resort",
        /// Never.
        Off = "off",
    }
}

named_enum! {
    /// What a stop of the daemon does with a runner.
    pub enum StopAction {
        /// Nothing: it stays registered.
        Keep = "keep",
        /// It deletes the runner in GitLab.
        DeleteRunner = "delete_runner",
        /// It deletes this machine's manager of the runner.
        DeleteManager = "delete_manager",
    }
}

named_enum! {
    /// A problem that needs a human.
    pub enum Trouble {
        /// Registration tokens are disabled on this GitLab (410).
        RegistrationDisabled = "registration_disabled",
        /// The registration token is wrong.
        RegistrationRefused = "registration_refused",
        /// The token of an enrollment is refused.
        GivenTokenRefused = "given_token_refused",
        /// The runner's project or group is gone.
        Orphaned = "orphaned",
        /// The runner is not assigned to any project.
        Unassigned = "unassigned",
        /// The server rejects our parameters.
        InvalidRequest = "invalid_request",
        /// The access token is wrong, or lacks the rights.
        AccessDenied = "access_denied",
        /// The server does not support what is needed.
        Unsupported = "unsupported",
        /// A secret or TLS file on this machine cannot be used.
        LocalFile = "local_file",
        /// The answers of the server have not been those of a GitLab for a day.
        NotUnderstood = "not_understood",
        /// The answer to a registration was lost: GitLab may have made a runner.
        RegistrationLost = "registration_lost",
    }
}

named_enum! {
    /// What a command did with a runner.
    pub enum Action {
        /// The server accepted the token.
        Verified = "verified",
        /// A token that another process wrote was accepted and adopted.
        Adopted = "adopted",
        /// The server refused.
        Refused = "refused",
        /// The server neither accepted nor refused.
        Unanswered = "unanswered",
        /// The token was refused and its entry removed from config.toml.
        Dropped = "dropped",
        /// The token was replaced.
        Rotated = "rotated",
        /// The runner was registered.
        Registered = "registered",
        /// The runner was registered already.
        Unchanged = "unchanged",
        /// The runner was registered already; its entry was put back into config.toml.
        Restored = "restored",
        /// Its record went over to another address of its server.
        Relocated = "relocated",
        /// The server deleted the runner or its manager.
        Unregistered = "unregistered",
        /// The server no longer had the runner.
        AlreadyGone = "already_gone",
        /// The token is not accepted, so the runner may remain in GitLab.
        MayRemain = "may_remain",
        /// The command failed for another reason.
        Failed = "failed",
    }
}

/// The result of the last verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum VerifyOutcome {
    /// A genuine answer accepted the token.
    Accepted,
    /// A genuine answer refused it.
    Refused,
    /// The server neither accepted nor refused.
    Unanswered,
    /// A problem that needs a human prevents an answer.
    Trouble(Trouble),
}

impl From<VerifyOutcome> for &'static str {
    fn from(outcome: VerifyOutcome) -> Self {
        match outcome {
            VerifyOutcome::Accepted => "accepted",
            VerifyOutcome::Refused => "refused",
            VerifyOutcome::Unanswered => "unanswered",
            VerifyOutcome::Trouble(trouble) => trouble.as_str(),
        }
    }
}

impl From<String> for VerifyOutcome {
    /// A name of a later version counts as unanswered.
    fn from(name: String) -> Self {
        match name.as_str() {
            "accepted" => Self::Accepted,
            "refused" => Self::Refused,
            name => Trouble::from_name(name).map_or(Self::Unanswered, Self::Trouble),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_read_back_as_its_variant() {
        for state in StateName::ALL {
            let json = serde_json::to_string(state).unwrap();
            assert_eq!(serde_json::from_str::<StateName>(&json).unwrap(), *state, "{json}");
        }
        let outcomes = [VerifyOutcome::Accepted, VerifyOutcome::Refused, VerifyOutcome::Unanswered];
        for outcome in Trouble::ALL.iter().copied().map(VerifyOutcome::Trouble).chain(outcomes) {
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<VerifyOutcome>(&json).unwrap(), outcome, "{json}");
        }
    }

    #[test]
    fn a_name_of_a_later_version_is_readable() {
        assert_eq!(serde_json::from_str::<StateName>("\"paused\"").unwrap(), StateName::Unknown);
        assert_eq!(serde_json::from_str::<VerifyOutcome>("\"paused\"").unwrap(), VerifyOutcome::Unanswered);
        assert!(serde_json::from_str::<Step>("\"dance\"").is_err());
    }
}
