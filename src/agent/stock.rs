//! Taking stock: what was interrupted is finished, and who is to be served is found out.

use std::collections::BTreeMap;

use super::{Census, Config, Shared, census};
use crate::clock::Clock;
use crate::model::RunnerKey;
use crate::observe::chain;
use crate::ops::{Disk, Error, Server, Unfinished};
use crate::store::Snapshot;

/// Finishes what was interrupted, then finds out who is to be served.
pub(super) async fn take_stock<S: Server, D: Disk, C: Clock>(
    shared: &Shared<S, D, C>,
    config: &Config,
) -> Result<(Census, BTreeMap<RunnerKey, Unfinished>), Error> {
    let now = shared.wall();
    let replayed = shared.ops.replay(now).await?;
    let records = shared.ops.disk().records().await?;
    for damaged in &records.damaged {
        tracing::error!(error = chain(damaged), "a runner's record is damaged");
    }
    let snapshot = shared.ops.disk().read().await?;
    let census = census(config, records.records, &snapshot);
    write_down(shared, &census).await?;
    Ok((census, replayed.unfinished.into_iter().collect()))
}

/// Brings to the disk what the census has decided about records.
async fn write_down<S: Server, D: Disk, C: Clock>(shared: &Shared<S, D, C>, census: &Census) -> Result<(), Error> {
    for (old, record) in &census.renamed {
        shared.ops.rename_record(old, record.clone()).await?;
    }
    Ok(())
}

/// Who is to be served, and what config.toml said at the time.
pub(super) type Count = Result<(Census, Snapshot), Error>;

/// Finds out who is to be served now, from what config.toml says.
pub(super) async fn count_again<S: Server, D: Disk, C: Clock>(shared: &Shared<S, D, C>, config: &Config) -> Count {
    let snapshot = shared.ops.disk().read().await?;
    let records = shared.ops.disk().records().await?;
    let census = census(config, records.records, &snapshot);
    write_down(shared, &census).await?;
    Ok((census, snapshot))
}
