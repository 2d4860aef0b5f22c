//! Taking stock: what was interrupted is finished, and who is to be served is found out.

use std::collections::BTreeMap;

use super::{Config, Engine, Inventory, inventory};
use crate::clock::Clock;
use crate::error_chain::chain;
use crate::model::RunnerKey;
use crate::ops::{Disk, Error, Server, Unfinished};
use crate::store::Snapshot;

/// Finishes what was interrupted, then finds out who is to be served.
pub async fn take_stock<S: Server, D: Disk, C: Clock>(
    engine: &Engine<S, D, C>,
    config: &Config,
) -> Result<(Inventory, BTreeMap<RunnerKey, Unfinished>), Error> {
    let now = engine.now();
    let replayed = engine.ops.replay(now).await?;
    let records = engine.ops.disk().records().await?;
    for damaged in &records.damaged {
        tracing::error!(error = chain(damaged), "a runner's record is damaged");
    }
    let snapshot = engine.ops.disk().read().await?;
    let inventory = inventory(config, records.records, &snapshot);
    write_down(engine, &inventory).await?;
    Ok((inventory, replayed.unfinished.into_iter().collect()))
}

/// Brings to the disk what the census has decided about records.
async fn write_down<S: Server, D: Disk, C: Clock>(
    engine: &Engine<S, D, C>,
    inventory: &Inventory,
) -> Result<(), Error> {
    for (old, record) in &inventory.renamed {
        engine.ops.rename_record(old, record.clone()).await?;
    }
    Ok(())
}

/// Who is to be served, and what config.toml said at the time.
pub type Count = Result<(Inventory, Snapshot), Error>;

/// Finds out who is to be served now, from what config.toml says.
pub async fn count_again<S: Server, D: Disk, C: Clock>(engine: &Engine<S, D, C>, config: &Config) -> Count {
    let snapshot = engine.ops.disk().read().await?;
    let records = engine.ops.disk().records().await?;
    let inventory = inventory(config, records.records, &snapshot);
    write_down(engine, &inventory).await?;
    Ok((inventory, snapshot))
}
