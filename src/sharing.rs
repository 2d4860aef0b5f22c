//! The stores that hold the credentials of shared runners: etcd, or a Secret of Kubernetes.
//!
//! An [`Engine`] keeps one value per shared runner and replaces it by compare-and-swap on the *value*, never on a revision
//! alone: a store that was restored from a backup counts its revisions again. [`Shares`] puts a [`SharedRunner`](crate::model::SharedRunner) into that
//! value and reads it back, with its token sealed if there is a key. A value that is none of ours is never overwritten.
//!
//! Which token counts where store and machine disagree is decided in `lifecycle::sharing`, not here.
//!
//! etcd is spoken to by its JSON gateway, which every member serves: the crate for its own protocol needs `protoc` to be
//! built, and brings a second TLS stack. The gateway has all that is needed, TLS with client certificates and users with
//! passwords; it has no users by the common name of a certificate, which etcd does not offer there. Kubernetes is spoken to
//! by the crate `kube`, which knows the credentials of a pod and every kind of kubeconfig.

mod any;
mod closed;
mod engine;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(test)]
pub mod memory;
mod settings;
mod shares;
#[cfg(test)]
mod tests;
mod wire;

pub use any::{AnyEngine, AnyWatch};
pub use engine::{Engine, Value, Watch};
pub use error::Error;
pub use settings::{EngineSettings, PREFIX, Settings, open};
pub use shares::{Found, Shares, Stored, Swapped};

/// Size limit of a value, in bytes. etcd takes 1.5 MiB in one request, Kubernetes 1 MiB in a Secret.
pub const MAX_VALUE_BYTES: usize = 512 * 1024;
