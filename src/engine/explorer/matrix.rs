//! One wrong answer of a gateway: every status and body, to every call of a runner's life.
//!
//! It leaves token, entry and record as they are and at most makes the state uncertain; it causes no second request that
//! changes anything before a verification was answered; and the runner goes on afterwards. `promise.rs` says what that
//! means for each call.

mod promise;

use std::collections::BTreeMap;

use tokio::task::LocalSet;

use super::act::{Act, Move, When};
use super::gitlab::{Body, Call, Fault};
use super::people::Mistakes;
use super::play::{Player, Setup};
use super::world::CallLog;

/// The runner that a row is about.
const REGISTERED: &str = "found";
const CREATED: &str = "created";

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
    let mut rows = vec![
        Row::new(Call::Verify, REGISTERED, Act::StartDaemon),
        Row { setup: DUE, ..Row::new(Call::Reset, REGISTERED, Act::StartDaemon) },
        Row::new(Call::Reset, REGISTERED, Act::Rotate(0)).before([Act::Verify(0)]),
        Row::new(Call::ResetById, REGISTERED, Act::RotateById(0)).before([Act::Verify(0)]),
        recovery(),
    ];
    rows.extend([(Call::Register, "build-1", 0), (Call::Create, "made-1", 4)].into_iter().flat_map(registrations));
    rows.extend([
        Row::new(Call::DeleteRunner, REGISTERED, Act::Unregister(0)).before([Act::Verify(0)]),
        Row::new(Call::DeleteManager, CREATED, Act::Unregister(1)).before([Act::Verify(1)]),
        stop(Call::DeleteRunner, REGISTERED),
        Row { removed: &[REGISTERED], ..stop(Call::DeleteManager, CREATED) },
    ]);
    rows
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

/// Plays every so-manieth status from this one on, with every body.
fn answers_from(first: usize, stride: usize) -> (usize, Wrong) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (mut count, mut wrong) = (0, Wrong::new());
    for row in rows() {
        for status in (200..=599).skip(first).step_by(stride).filter(|status| !is_documented(row.call, *status)) {
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
    // The unit tests take a part of the statuses; `.ci/run explorer` takes all.
    let step = super::number("MATRIX_STEP", 29) as usize;
    let threads = super::number("EXPLORER_THREADS", 1).max(1) as usize;
    let players: Vec<_> =
        (0..threads).map(|number| std::thread::spawn(move || answers_from(number * step, step * threads))).collect();
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
