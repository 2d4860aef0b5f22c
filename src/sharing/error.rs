//! What can go wrong between a machine and the store of a shared runner.

use crate::secret::Fingerprint;

/// An act on the store of a shared runner has failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No address of the store answers, or it has no majority.
    #[error("{engine} cannot be reached: {detail}")]
    Unreachable {
        /// The store.
        engine: &'static str,
        /// What was tried, and what went wrong, by address.
        detail: String,
    },
    /// The answer to a write was lost: it may be executed, now or later.
    #[error("the answer of {engine} to a write of {object} was lost: {detail}")]
    Unknown {
        /// The store.
        engine: &'static str,
        /// The object.
        object: String,
        /// What went wrong.
        detail: String,
    },
    /// The store does not know the credentials.
    #[error("{engine} does not accept the credentials of {attempt}: {detail}")]
    Unauthenticated {
        /// The store.
        engine: &'static str,
        /// Whose they are, at which address, and what was tried with them.
        attempt: String,
        /// What the store says.
        detail: String,
    },
    /// A right is missing.
    #[error("{engine} does not allow to {act} {object}: {right} is missing")]
    Denied {
        /// The store.
        engine: &'static str,
        /// What was tried.
        act: &'static str,
        /// The object.
        object: String,
        /// The right that it needs.
        right: String,
    },
    /// A person has to make the object when the agent is installed.
    #[error("there is no {object}")]
    Missing {
        /// The object.
        object: String,
    },
    /// The value is not that of a shared runner, or not one that this version knows.
    #[error("{object} does not hold a shared runner: {detail}")]
    Foreign {
        /// The object.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The token is sealed with another key, or this machine has none.
    #[error("the token in {object} is sealed with the key {sealed_with}, and this machine has {own}")]
    Sealed {
        /// The object.
        object: String,
        /// Tells the key that it is sealed with.
        sealed_with: Fingerprint,
        /// This machine's key, in words.
        own: String,
    },
    /// The token is not sealed, although this machine has a key.
    #[error("the token in {object} is not sealed, although this machine has an encryption key")]
    Unsealed {
        /// The object.
        object: String,
    },
    /// The value grew beyond what a store takes.
    #[error("{object} would have {bytes} bytes, more than {limit}", limit = super::MAX_VALUE_BYTES)]
    TooLarge {
        /// The object.
        object: String,
        /// Its size.
        bytes: usize,
    },
    /// The engine is not part of this build.
    #[error("this build of runner-agent cannot use {engine}")]
    NotCompiledIn {
        /// The store.
        engine: &'static str,
    },
    /// The settings of the store cannot be used.
    #[error("{engine} cannot be used: {detail}")]
    Settings {
        /// The store.
        engine: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Nothing says where the API server is.
    #[error(
        "Kubernetes cannot be used: this is no pod with a service account, and [sharing] has no `kubeconfig`: {detail}"
    )]
    NoPod {
        /// What is missing.
        detail: String,
    },
    /// A secret of `[sharing]` cannot be read now. Its content was not looked at.
    #[error("{engine} cannot be used: {detail}")]
    Unreadable {
        /// The store.
        engine: &'static str,
        /// What cannot be read, and why.
        detail: String,
    },
    /// The store has understood the request, and will never execute it: a person has to change something there.
    #[error("{engine} rejects a request about {object}: {detail}")]
    Rejected {
        /// The store.
        engine: &'static str,
        /// The object.
        object: String,
        /// What it says.
        detail: String,
    },
    /// The store has answered something else. Nothing was written.
    #[error("{engine} has answered {detail} to a request about {object}")]
    Answer {
        /// The store.
        engine: &'static str,
        /// The object.
        object: String,
        /// What it has answered.
        detail: String,
    },
}

impl Error {
    /// Whether the same may succeed later without anyone's help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unknown { .. } | Self::Answer { .. } => true,
            Self::Unauthenticated { .. }
            | Self::Denied { .. }
            | Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::Sealed { .. }
            | Self::Unsealed { .. }
            | Self::TooLarge { .. }
            | Self::NotCompiledIn { .. }
            | Self::NoPod { .. }
            | Self::Settings { .. }
            | Self::Unreadable { .. }
            | Self::Rejected { .. } => false,
        }
    }

    /// Whether the store refuses the machine, which it also does for some seconds after its start: an API server reads its
    /// roles when it serves already.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unauthenticated { .. } | Self::Denied { .. })
    }

    /// The same about a request that changes nothing in any case.
    #[cfg(any(feature = "etcd", feature = "kubernetes"))]
    #[must_use]
    pub(super) fn without_effect(self) -> Self {
        match self {
            Self::Unknown { engine, detail, .. } => Self::Unreachable { engine, detail },
            other => other,
        }
    }

    /// What the user can do about it, unless the message says so already.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated { engine: "etcd", .. } => Some(
                "check `username` and `password` of [sharing]; `etcdctl user passwd USER` sets another password, and `packaging/etcd/create-user` makes the user",
            ),
            Self::Unauthenticated { .. } => Some(
                "check that the ServiceAccount of the pod exists, or that `kubeconfig` of [sharing] has credentials that are still valid",
            ),
            Self::Denied { .. } => Some(
                "grant the right; the agent's packages have a Role for Kubernetes and the commands for an etcd role",
            ),
            Self::Missing { .. } => Some("create the empty Secret; it is part of the manifests"),
            Self::Foreign { .. } => Some(
                "nothing was overwritten: use another name in `share_as`, update the agent, or remove the object with `runner-agent shared forget`",
            ),
            Self::Sealed { .. } => Some(
                "nothing was overwritten: give all machines the same `encryption_key` in [sharing]; once they have it, and the value still has another one, `runner-agent shared forget NAME` on one machine removes the value, and the machines write their token again, sealed with their key",
            ),
            Self::Unsealed { .. } => Some(
                "nothing was overwritten: give all machines the same `encryption_key` in [sharing]; once they have it, `runner-agent shared forget NAME` on one machine removes the value, and the machines write their token again, sealed",
            ),
            Self::TooLarge { .. } => Some("remove members that are gone with `runner-agent shared forget`"),
            Self::NotCompiledIn { .. } => Some(
                "the packages of runner-agent have it: deb, rpm, the tarball with the static binary, and the container image; a build of your own needs `--features etcd,kubernetes`",
            ),
            Self::NoPod { .. } => Some(
                "run the agent in a pod with a ServiceAccount, or set `kubeconfig` in [sharing] to a file with the address of the API server and credentials",
            ),
            Self::Rejected { .. } => Some("nothing was written: change what the store says, or its limits"),
            Self::Unreachable { engine: "etcd", .. } => Some(
                "check whether the members of etcd run, and whether `endpoints` of [sharing] has their addresses and `tls_ca_file` their authority",
            ),
            Self::Unreachable { engine: "Kubernetes", .. } => {
                Some("check whether the API server runs, and whether this machine has a way to it")
            }
            Self::Unreachable { .. }
            | Self::Unknown { .. }
            | Self::Settings { .. }
            | Self::Unreadable { .. }
            | Self::Answer { .. } => None,
        }
    }
}
