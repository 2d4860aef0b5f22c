//! The acts of GitLab, of people and of the machine.

use super::chance::Chance;
use super::gitlab::{Body, Call, Fault, Oddity};

/// When an act comes after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// After this many seconds.
    After(u64),
    /// At the so-manieth await of a port, or after two minutes.
    Await(u32),
}

/// An entry of config.toml, by its position modulo their number.
pub(super) type EntryIndex = u8;

/// A runner of GitLab, by its position modulo their number.
pub(super) type RunnerIndex = u8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing, while time passes.
    Wait,
    /// Something happens to the next request of this kind.
    Fault(Call, Fault),
    /// The connection is refused for so many seconds.
    Down(u64),
    /// A gateway answers every request for so many seconds.
    GatewayFor(u64, u16, Body),
    /// Maintenance mode for so many seconds.
    Maintenance(u64),
    /// GitLab migrates its database for so many seconds, and puts the calls with a runner's token off.
    Migrate(u64),
    /// Reads come from a replica that is so many seconds behind, for as long.
    Lag(u64),
    /// The database is restored as it was before the last so many changes.
    Restore(u8),
    /// The `Date` header is so many seconds ahead.
    DateAhead(i64),
    /// New tokens live for so many seconds; zero for ever.
    Life(u64),
    /// Verifications are answered as by a release before 15.9, or not.
    OldRelease(bool),
    /// A runner's rotation deadline passes, or is lifted.
    CloseRotation(RunnerIndex, bool),
    /// A person resets a runner's token in GitLab, and writes it into its entry, or not.
    ResetInGitlab(RunnerIndex, bool),
    /// A person deletes a runner in GitLab.
    DeleteInGitlab(RunnerIndex),
    /// A person keeps a copy of config.toml.
    Backup,
    /// And puts it back.
    RestoreConfig,
    DeleteEntry(EntryIndex),
    /// A person puts another runner's token into an entry.
    SwapToken(EntryIndex, RunnerIndex),
    DuplicateEntry(EntryIndex),
    RemoveId(EntryIndex),
    BlankToken(EntryIndex),
    /// An enrollment is added to agent.toml, or removed.
    Enroll(u8),
    Unenroll(u8),
    UnregisterPolicy(u8),
    RegisterAgainPolicy(u8),
    AccessToken(bool),
    /// The daemon rotates its access token, or a person does if none runs.
    RotateAccessToken,
    /// An entry's runner is declared shared.
    Share(EntryIndex),
    /// A command beside the daemon.
    Verify(EntryIndex),
    VerifyDelete(EntryIndex),
    Rotate(EntryIndex),
    RotateById(EntryIndex),
    Unregister(EntryIndex),
    Register(u8),
    RegisterForce(u8),
    KillCommands,
    StartDaemon,
    KillDaemon,
    Terminate,
    Quit,
    Hangup,
    Reboot,
    DiskFault(&'static str, u8),
    WallJump(i64),
}

/// An act and when it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move(pub(super) When, pub(super) Act);

const CALLS: [Call; 11] = [
    Call::Any,
    Call::Any,
    Call::Verify,
    Call::Verify,
    Call::Reset,
    Call::Register,
    Call::Create,
    Call::Probe,
    Call::ResetById,
    Call::DeleteRunner,
    Call::DeleteManager,
];

/// Without 204, which is what GitLab answers to a deletion.
const STATUSES: [u16; 27] = [
    200, 201, 202, 301, 302, 400, 401, 403, 404, 404, 404, 405, 407, 408, 409, 410, 412, 413, 418, 422, 429, 500, 501,
    502, 503, 503, 504,
];

const DISK_CALLS: [&str; 9] = ["edit", "record", "begin", "answered", "clear", "read", "probe", "forget", "get_record"];

fn draw_fault(chance: &mut Chance) -> Fault {
    match chance.below(14) {
        0 => Fault::Connect,
        1 => Fault::CutBefore,
        2 | 3 => Fault::CutAfter,
        4..=7 => Fault::Gateway(chance.of(&STATUSES), chance.of(&Body::ALL)),
        8 => Fault::GatewayAfter(chance.of(&[408, 500, 502, 503, 503, 504, 200, 204]), chance.of(&Body::ALL)),
        9 => Fault::Slow(chance.of(&[2, 5, 9, 20])),
        10 => Fault::Odd(chance.of(&Oddity::ALL)),
        11 => Fault::ServerError,
        12 => Fault::Throttle,
        _ => Fault::SameToken,
    }
}

fn draw_when(chance: &mut Chance) -> When {
    match chance.below(12) {
        0..=5 => When::Await(1 + chance.below(24) as u32),
        6 | 7 => When::After(chance.below(5)),
        8 => When::After(chance.below(70)),
        9 => When::After(chance.below(900)),
        10 => When::After(chance.below(4000)),
        _ => When::After(chance.below(30_000)),
    }
}

/// Draws an act.
pub(super) fn draw(chance: &mut Chance) -> Move {
    let when = draw_when(chance);
    let index = chance.below(4) as u8;
    let act = match chance.below(100) {
        0..=21 => Act::Fault(chance.of(&CALLS), draw_fault(chance)),
        22 => Act::Down(chance.of(&[10, 100, 2000, 8000])),
        23 => Act::GatewayFor(chance.of(&[10, 100, 2000]), chance.of(&STATUSES), chance.of(&Body::ALL)),
        24 => Act::Maintenance(chance.of(&[100, 2000])),
        25..=27 => Act::Lag(chance.of(&[2, 10, 30])),
        28 => Act::Restore(1 + chance.below(3) as u8),
        29 | 30 => Act::DateAhead(chance.of(&[0, 0, 3, 60, 3600, 90_000, 2_000_000, 34_560_000, -60, -7200])),
        31 => Act::Life(chance.of(&[7200, 7200, 21_600, 86_400, 0])),
        32 => Act::OldRelease(chance.one_in(2)),
        33 => Act::CloseRotation(index, chance.one_in(2)),
        34..=37 => Act::ResetInGitlab(index, !chance.one_in(4)),
        38 => Act::DeleteInGitlab(index),
        39 => Act::Backup,
        40 | 41 => Act::RestoreConfig,
        42 => Act::DeleteEntry(index),
        43 => Act::SwapToken(index, chance.below(4) as u8),
        44 => Act::DuplicateEntry(index),
        45 => Act::RemoveId(index),
        46 => Act::BlankToken(index),
        47..=50 => Act::Enroll(chance.of(&[0, 0, 0, 1, 1, 2, 2, 3, 4])),
        51 => Act::Unenroll(chance.below(5) as u8),
        52 => Act::UnregisterPolicy(chance.below(3) as u8),
        53 => Act::RegisterAgainPolicy(chance.below(3) as u8),
        54 => Act::AccessToken(chance.one_in(2)),
        55 => Act::Share(index),
        56..=58 => Act::Verify(index),
        59 => Act::VerifyDelete(index),
        60..=62 => Act::Rotate(index),
        63 => Act::RotateById(index),
        64..=66 => Act::Unregister(index),
        67 | 68 => Act::Register(chance.below(3) as u8),
        69 => Act::RegisterForce(chance.below(2) as u8),
        70 => Act::KillCommands,
        71..=75 => Act::StartDaemon,
        76..=79 => Act::KillDaemon,
        80 | 81 => Act::Terminate,
        82 | 83 => Act::Quit,
        84..=88 => Act::Hangup,
        89 => Act::Reboot,
        90..=94 => Act::DiskFault(chance.of(&DISK_CALLS), chance.of(&[1, 1, 2, 5])),
        95 => Act::WallJump(chance.of(&[-7200, -30, 30, 7200, 90_000])),
        96 => Act::Migrate(chance.of(&[100, 2000])),
        97 => Act::RotateAccessToken,
        _ => Act::Wait,
    };
    Move(when, act)
}
