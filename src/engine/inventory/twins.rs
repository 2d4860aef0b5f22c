//! Twins: runners with one token at different addresses, which may be one runner under two names of its server.

use std::collections::BTreeMap;

use super::super::pace::Pace;
use super::ManagedRunner;
use super::relation::current_digest;
use crate::lifecycle::outlives_twin;
use crate::model::{Expiry, VerifyOutcome};
use crate::secret::Digest;
use crate::store::Record;

/// Marks each runner whose token an earlier runner at another address has too, or has had before its last rotation.
pub(super) async fn mark(runners: &mut [ManagedRunner]) {
    let mut by_current: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    let mut by_former: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    let mut pace = Pace::default();
    for (number, managed) in runners.iter().enumerate() {
        pace.step().await;
        let record = &managed.runner.record;
        if let Some(digest) = current_digest(record) {
            by_current.entry(digest).or_default().push(number);
        }
        for former in &record.former_digests {
            by_former.entry(*former).or_default().push(number);
        }
    }
    let others = |map: &BTreeMap<Digest, Vec<usize>>, digest: Digest| map.get(&digest).cloned().unwrap_or_default();
    let twin_of = |number: usize| {
        let record = &runners[number].runner.record;
        let digest = current_digest(record)?;
        let is_elsewhere = |other: &usize| runners[*other].runner.record.url != record.url;
        let has_replaced = |other: &usize| !is_accepted_since(record, &runners[*other].runner.record);
        let replaced = others(&by_former, digest).into_iter().filter(is_elsewhere).find(has_replaced);
        let same = || others(&by_current, digest).into_iter().filter(|other| *other < number).find(is_elsewhere);
        let other = replaced.or_else(same)?;
        Some(runners[other].runner.record.key.clone())
    };
    let mut twins = Vec::new();
    for number in 0..runners.len() {
        twins.push(twin_of(number));
        pace.step().await;
    }
    for (managed, twin_of) in runners.iter_mut().zip(twins) {
        managed.twin_of = twin_of;
    }
}

/// Whether the server has accepted a record's token after the other runner had replaced the same one.
fn is_accepted_since(record: &Record, other: &Record) -> bool {
    let Some(verified) = &record.last_verify else { return false };
    let expiry = record.credential.as_ref().map_or(Expiry::Unknown, |credential| credential.expiry);
    verified.outcome == VerifyOutcome::Accepted && outlives_twin(verified.at, other.replaced_at(), expiry)
}
