//! The engine that the settings name, as one type.

use std::convert::Infallible;

use super::closed::Closed;
#[cfg(feature = "etcd")]
use super::etcd;
#[cfg(feature = "kubernetes")]
use super::kubernetes;
#[cfg(test)]
use super::memory;
use super::{Engine, Error, Value, Watch};
use crate::model::ShareName;

/// One of the engines that are compiled in, or what stands for it.
#[derive(Debug)]
pub enum AnyEngine {
    /// None yet.
    Closed(Closed),
    /// etcd.
    #[cfg(feature = "etcd")]
    Etcd(etcd::Etcd),
    /// Secrets of Kubernetes.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<kubernetes::Kubernetes>),
    /// Memory.
    #[cfg(test)]
    Memory(memory::MemoryEngine),
}

/// Changes of one value in any engine.
#[derive(Debug)]
pub enum AnyWatch {
    /// In etcd.
    #[cfg(feature = "etcd")]
    Etcd(etcd::EtcdWatch),
    /// In Kubernetes.
    #[cfg(feature = "kubernetes")]
    Kubernetes(kubernetes::KubernetesWatch),
    /// In memory.
    #[cfg(test)]
    Memory(memory::MemoryWatch),
}

/// Does the same with every engine that is compiled in.
macro_rules! match_engine {
    ($any:expr, $engine:ident => $act:expr) => {
        match *$any {
            AnyEngine::Closed(ref $engine) => $act,
            #[cfg(feature = "etcd")]
            AnyEngine::Etcd(ref $engine) => $act,
            #[cfg(feature = "kubernetes")]
            AnyEngine::Kubernetes(ref $engine) => $act,
            #[cfg(test)]
            AnyEngine::Memory(ref $engine) => $act,
        }
    };
}

impl Engine for AnyEngine {
    type Watch = AnyWatch;

    fn object(&self, name: &ShareName) -> String {
        match_engine!(self, engine => engine.object(name))
    }

    async fn get(&self, name: &ShareName) -> Result<Option<Value>, Error> {
        match_engine!(self, engine => engine.get(name).await)
    }

    async fn swap(&self, name: &ShareName, expected: Option<&Value>, value: Option<&Value>) -> Result<bool, Error> {
        match_engine!(self, engine => engine.swap(name, expected, value).await)
    }

    async fn probe(&self, name: &ShareName) -> Result<(), Error> {
        match_engine!(self, engine => engine.probe(name).await)
    }

    async fn watch(&self, name: &ShareName) -> Result<AnyWatch, Error> {
        match_engine!(self, engine => engine.watch(name).await.map(AnyWatch::from))
    }
}

impl Watch for AnyWatch {
    async fn next(&mut self) -> Result<Option<Value>, Error> {
        match *self {
            #[cfg(feature = "etcd")]
            Self::Etcd(ref mut watch) => watch.next().await,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(ref mut watch) => watch.next().await,
            #[cfg(test)]
            Self::Memory(ref mut watch) => watch.next().await,
        }
    }
}

impl From<Infallible> for AnyWatch {
    fn from(watch: Infallible) -> Self {
        match watch {}
    }
}

#[cfg(feature = "etcd")]
impl From<etcd::EtcdWatch> for AnyWatch {
    fn from(watch: etcd::EtcdWatch) -> Self {
        Self::Etcd(watch)
    }
}

#[cfg(feature = "kubernetes")]
impl From<kubernetes::KubernetesWatch> for AnyWatch {
    fn from(watch: kubernetes::KubernetesWatch) -> Self {
        Self::Kubernetes(watch)
    }
}

#[cfg(test)]
impl From<memory::MemoryWatch> for AnyWatch {
    fn from(watch: memory::MemoryWatch) -> Self {
        Self::Memory(watch)
    }
}
