//! One wrong answer of a gateway: every status and body, to every call of a runner's life.
//!
//! It leaves token, entry and record as they are and at most makes the state uncertain; it causes no second request that
//! changes anything before a verification was answered; and the runner goes on afterwards. `promise.rs` says what that
//! means for each call.

mod promise;

use std::collections::BTreeMap;

use tokio::task::LocalSet;

use super::act::{Act, Move, When};
use super::chance::seed_jitter;
use super::gitlab::{Body, Call, Fault};
use super::people::Mistakes;
use super::play::{Player, Setup};
use super::world::CallLog;

/// The runner that a row is about.
const REGISTERED: &str = "found";
const CREATED: &str = "created";
const GIVEN: &str = "given-1";

/// Statuses that proxies and servers answer with.
const COMMON: [u16; 22] =
    [200, 201, 202, 204, 301, 302, 400, 401, 403, 404, 405, 408, 409, 410, 412, 422, 429, 500, 501, 502, 503, 504];

/// One call of a life, and what leads to it.
struct Row {
    call: Call,
    name: &'static str,
    setup: Setup,
    before: Vec<Move>,
    act: Act,
    /// Within how many seconds the call is made.
    within: u64,
    /// What a person does once the gateway is gone.
    after: Vec<Move>,
    /// Runners that the act removes, whatever the gateway answers.
    removed: &'static [&'static str],
}

const NOW: When = When::After(0);
const HOUR: u64 = 3600;

/// A rotation is due at once.
const DUE: Setup = Setup { age: 70_000, ..FRESH };
const FRESH: Setup = Setup { life: 86_400, age: 0, jitter: 0, is_stateless: false, mistakes: Mistakes::Together };

impl Row {
    fn new(call: Call, name: &'static str, act: Act) -> Self {
        Self { call, name, setup: FRESH, before: Vec::new(), act, within: 2, after: Vec::new(), removed: &[] }
    }

    fn before(self, acts: impl IntoIterator<Item = Act>) -> Self {
        Self { before: acts.into_iter().map(|act| Move(NOW, act)).collect(), ..self }
    }

    fn after(self, acts: impl IntoIterator<Item = (When, Act)>) -> Self {
        Self { after: acts.into_iter().map(|(when, act)| Move(when, act)).collect(), ..self }
    }
}

/// All runners are unregistered at a stop.
const UNREGISTER_ALL: Act = Act::UnregisterPolicy(2);

fn rows() -> Vec<Row> {
    let mut rows = verifications();
    rows.extend([
        Row { setup: DUE, ..Row::new(Call::Reset, REGISTERED, Act::StartDaemon) },
        Row {
            setup: DUE,
            removed: &[REGISTERED],
            ..Row::new(Call::Reset, CREATED, Act::StartDaemon).before([Act::Unregister(0)])
        },
        Row::new(Call::Reset, REGISTERED, Act::Rotate(0)).before([Act::Verify(0)]),
        Row::new(Call::ResetById, REGISTERED, Act::RotateById(0)).before([Act::Verify(0)]),
        recovery(),
        recovery_by_registration(),
        Row::new(Call::Register, "build-1", Act::RegisterForce(0))
            .before([Act::Register(0)])
            .after([(NOW, Act::RegisterForce(0)), (When::After(61), Act::Register(0))]),
    ]);
    rows.extend([(Call::Register, "build-1", 0), (Call::Create, "made-1", 4)].into_iter().flat_map(registrations));
    rows.extend([
        Row::new(Call::DeleteRunner, REGISTERED, Act::Unregister(0)).before([Act::Verify(0)]),
        Row::new(Call::DeleteManager, CREATED, Act::Unregister(1)).before([Act::Verify(1)]),
        stop(Call::DeleteRunner, REGISTERED),
        Row { removed: &[REGISTERED], ..stop(Call::DeleteManager, CREATED) },
    ]);
    rows
}

/// The first verification, those that confirm a refusal or settle a lost reset, and those of given tokens.
fn verifications() -> Vec<Row> {
    let is_refused = [
        Move(NOW, Act::AccessToken(true)),
        Move(NOW, Act::StartDaemon),
        Move(When::After(60), Act::ResetInGitlab(0, false)),
        Move(NOW, Act::Hangup),
    ];
    let confirming = Row { within: 600, before: is_refused.into(), ..Row::new(Call::Verify, REGISTERED, Act::Wait) };
    let lost = [Act::Fault(Call::Reset, Fault::CutBefore), Act::StartDaemon];
    let settling = Row { within: 600, setup: DUE, ..Row::new(Call::Verify, REGISTERED, Act::Wait).before(lost) };
    let serving = [Move(NOW, Act::StartDaemon), Move(When::After(60), Act::Wait)];
    vec![
        Row::new(Call::Verify, REGISTERED, Act::StartDaemon),
        Row::new(Call::Verify, REGISTERED, Act::Verify(0)),
        Row::new(Call::Verify, REGISTERED, Act::VerifyDelete(0)),
        confirming,
        settling,
        Row { before: serving.into(), ..Row::new(Call::Verify, GIVEN, Act::Enroll(2)) },
        Row::new(Call::Verify, GIVEN, Act::Register(2)).after([(NOW, Act::Register(2))]),
    ]
}

/// A person resets the token, and the daemon does so by the runner's id once two verifications have refused its own.
fn recovery() -> Row {
    let before = [
        Move(NOW, Act::AccessToken(true)),
        Move(NOW, Act::StartDaemon),
        Move(When::After(60), Act::ResetInGitlab(0, false)),
    ];
    Row { within: 600, before: before.into(), ..Row::new(Call::ResetById, REGISTERED, Act::Hangup) }
}

/// A person resets the token, and the daemon registers the runner again into its entry.
fn recovery_by_registration() -> Row {
    let before = [
        Move(NOW, Act::RegisterAgainPolicy(2)),
        Move(NOW, Act::Enroll(0)),
        Move(NOW, Act::StartDaemon),
        Move(When::After(60), Act::ResetInGitlab(3, false)),
    ];
    let row = Row::new(Call::Register, "build-1", Act::Hangup).after([(NOW, Act::Hangup)]);
    Row { within: 900, before: before.into(), ..row }
}

/// The registrations of the daemon and of a command, each with the probe before it.
fn registrations((call, name, index): (Call, &'static str, u8)) -> [Row; 4] {
    let by_daemon = |call| Row::new(call, name, Act::StartDaemon).before([Act::Enroll(index)]);
    let by_command = |call| Row::new(call, name, Act::Register(index));
    // A token in the answer is asked about twice, a minute apart.
    let again = [(NOW, Act::RegisterForce(index)), (When::After(61), Act::Register(index))];
    [
        // A registration that may have been executed is not repeated by itself.
        by_daemon(call).after([(NOW, Act::Hangup)]),
        by_command(call).after(again),
        by_daemon(Call::Probe),
        // Nothing was sent, so the same command once more is enough.
        by_command(Call::Probe).after([(NOW, Act::Register(index))]),
    ]
}

fn stop(call: Call, name: &'static str) -> Row {
    let row = Row::new(call, name, Act::Terminate);
    // Everything was verified by then.
    let before = [Move(NOW, UNREGISTER_ALL), Move(NOW, Act::StartDaemon), Move(When::After(60), Act::Wait)];
    Row { before: before.into(), ..row }
}

/// Whether GitLab documents this answer for the call.
fn is_documented(call: Call, status: u16) -> bool {
    matches!((call, status), (Call::DeleteRunner | Call::DeleteManager, 204))
}

/// The requests so far from the wrongly answered one on.
fn since_the_wrong_answer(player: &Player) -> Vec<CallLog> {
    player.world.state().log.iter().flatten().skip_while(|entry| !entry.is_faulted).cloned().collect()
}

/// Plays one answer; the error says what was wrong.
async fn answer_of_a_gateway(row: &Row, status: u16, body: Body) -> Result<(), String> {
    seed_jitter(row.setup.jitter);
    let mut player = Player::new(row.setup, false);
    for next in &row.before {
        player.make(next).await;
    }
    player.make(&Move(When::After(1), Act::Fault(row.call, Fault::Gateway(status, body)))).await;
    player.world.state().log = Some(Vec::new());
    player.make(&Move(NOW, row.act.clone())).await;
    for _ in 0..row.within / 2 {
        if !since_the_wrong_answer(&player).is_empty() {
            break;
        }
        player.pass(2).await;
    }
    if since_the_wrong_answer(&player).is_empty() {
        return Err("the request was not sent".to_owned());
    }
    player.pass(HOUR / 4).await;
    let log = since_the_wrong_answer(&player);
    promise::is_kept(row, status, &log, &player.world.state())?;
    for next in &row.after {
        player.make(next).await;
    }
    player.make(&Move(NOW, Act::UnregisterPolicy(0))).await;
    player.make(&Move(NOW, Act::StartDaemon)).await;
    player.pass(HOUR).await;
    let is_repeated = log.iter().filter(|entry| entry.call == row.call).count() > 1;
    let result = promise::goes_on(row, is_repeated, &player.world.state());
    player.kill_all().await;
    result
}

/// What was wrong with a row, and with which answers.
type Wrong = BTreeMap<String, Vec<(u16, Body)>>;

/// Plays these statuses with every body.
fn answers(statuses: &[u16]) -> (usize, Wrong) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (mut count, mut wrong) = (0, Wrong::new());
    for row in rows() {
        for status in statuses.iter().copied().filter(|status| !is_documented(row.call, *status)) {
            for body in Body::ALL {
                let played = LocalSet::new().block_on(&runtime, answer_of_a_gateway(&row, status, body));
                count += 1;
                if let Err(error) = played {
                    wrong.entry(format!("{:?} {:?}: {error}", row.call, row.act)).or_default().push((status, body));
                }
            }
        }
    }
    (count, wrong)
}

#[test]
fn one_wrong_answer_of_a_gateway_changes_nothing_and_the_runner_goes_on() {
    // The unit tests take the common statuses and some others; `.ci/run explorer` takes all.
    let step = super::number("MATRIX_STEP", 97) as u16;
    let threads = super::number("EXPLORER_THREADS", 1).max(1) as usize;
    let is_taken = |status: &u16| (status - 200).is_multiple_of(step) || COMMON.contains(status);
    let statuses: Vec<u16> = (200..=599).filter(is_taken).collect();
    let shares = statuses.chunks(statuses.len().div_ceil(threads)).map(<[u16]>::to_vec);
    let players: Vec<_> = shares.map(|share| std::thread::spawn(move || answers(&share))).collect();
    let (mut count, mut wrong) = (0, Wrong::new());
    for player in players {
        let (played, errors) = player.join().unwrap();
        count += played;
        errors.into_iter().for_each(|(error, answers)| wrong.entry(error).or_default().extend(answers));
    }
    let shown =
        wrong.iter().map(|(error, answers)| format!("{} answers, as {:?}: {error}\n", answers.len(), answers.first()));
    assert!(wrong.is_empty(), "{}", shown.collect::<String>());
    #[expect(clippy::print_stdout, reason = "the stage of .ci/run shows it")]
    {
        println!("{count} answers of a gateway");
    }
}
