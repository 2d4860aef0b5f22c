//! A long time with short tokens, a server that fails now and then, and another process that writes config.toml.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use fake_gitlab::{Endpoint, Fault};

use super::{Figures, LATEST_SHARE, figures, number};
use crate::fleet::{Fleet, gitlab};
use crate::usage::{self, Usage};

/// How long it lasts, in seconds, unless `SCALE_SOAK` is set.
const SOAK_SECS: u64 = 1800;

/// The life of the tokens.
const LIFE: Duration = Duration::from_secs(600);

/// The share of the time after which memory does not grow.
const WARM_UP: f64 = 1.0 / 3.0;

/// The most that memory grows after that.
const MOST_GROWTH: f64 = 1.1;

/// What is kept is the least memory of so many seconds: the work on config.toml takes more for moments.
const LEVEL_SECS: u64 = 60;

/// One request in so many is answered with 503 before the server acts.
const FAILING: usize = 20;

/// The pause between two looks at the tokens.
const LOOK: Duration = Duration::from_secs(2);

/// How often another process writes config.toml.
const WRITE: Duration = Duration::from_secs(60);

pub(super) fn soak(count: usize) -> Vec<Figures> {
    let span = Duration::from_secs(number("SCALE_SOAK").unwrap_or(SOAK_SECS));
    let fleet = Fleet::new(count, gitlab(LIFE), "[rotate]\nat = \"50%\"\nfound = \"always\"\n");
    fleet.gitlab.order(Endpoint::Any, Fault::status(503)).every(FAILING);
    let daemon = fleet.start(&["run"]);
    let (began, mut written_at, mut lines) = (Instant::now(), Instant::now(), 0);
    let (mut latest, mut requests): (f64, usize) = (0.0, 0);
    let mut kept: BTreeMap<u64, f64> = BTreeMap::new();
    while began.elapsed() < span {
        thread::sleep(LOOK);
        latest = latest.max(oldest_share(&fleet));
        // The log would grow otherwise.
        requests += fleet.gitlab.requests().len();
        fleet.gitlab.clear_requests();
        let Usage { memory, .. } = usage::of(&daemon).unwrap();
        let level = kept.entry(began.elapsed().as_secs() / LEVEL_SECS).or_insert(memory);
        *level = level.min(memory);
        if written_at.elapsed() >= WRITE {
            written_at = Instant::now();
            lines += 1;
            write_comment(&fleet, lines);
        }
    }
    let usage = usage::of(&daemon).unwrap();
    daemon.kill();
    let warm_up = span.mul_f64(WARM_UP).as_secs() / LEVEL_SECS;
    let highest = |levels: Range<u64>| kept.range(levels).map(|(_, level)| *level).fold(0.0, f64::max);
    let (warm, most) = (highest(0..warm_up), highest(warm_up..u64::MAX));
    let mut wrong = Vec::new();
    if latest > LATEST_SHARE {
        wrong.push(format!("a token was kept for {:.0} % of its life", latest * 100.0));
    }
    if most > warm * MOST_GROWTH {
        wrong.push(format!("memory has grown from {warm:.1} to {most:.1} MiB"));
    }
    let shown: Vec<_> = kept.iter().step_by(5).map(|(minute, level)| format!("{minute} min {level:.1}")).collect();
    let remark = format!(
        ", the oldest token at {:.0} % of its life, {warm:.1} and then {most:.1} MiB ({})",
        latest * 100.0,
        shown.join(", ")
    );
    vec![Figures { remark, wrong, is_per_runner: false, ..figures("soak", usage, requests, usize::MAX) }]
}

/// The share of its life that the oldest token has behind it.
fn oldest_share(fleet: &Fleet) -> f64 {
    let now = fleet.gitlab.now();
    let expiries = fleet.gitlab.runners().into_iter().filter_map(|runner| runner.token_expires_at);
    let left = expiries.map(|expires_at| expires_at.duration_since(now).as_secs_f64());
    let least = left.fold(f64::INFINITY, f64::min);
    1.0 - least / LIFE.as_secs_f64()
}

/// As an editor or a configuration management does it: what the agent has written since the file was read is lost.
fn write_comment(fleet: &Fleet, number: usize) {
    let (path, new) = (fleet.path("config/config.toml"), fleet.path("config/config.toml.new"));
    let text = fs::read_to_string(&path).unwrap();
    let text = text.strip_prefix("# write ").and_then(|text| text.split_once('\n')).map_or(&*text, |(_, rest)| rest);
    fs::write(&new, format!("# write {number}\n{text}")).unwrap();
    fs::rename(&new, &path).unwrap();
}
