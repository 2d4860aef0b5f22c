//! One wrong answer of a gateway: every status and body, to every call of a runner's life.
//!
//! It leaves token, entry and record as they are, it causes no second request that changes anything before a
//! verification was answered, and the runner goes on afterwards. The one exception is the deletion of a manager, which
//! is sent once more. Where there is no token yet, a probe stands for the verification.

use tokio::task::LocalSet;

use super::act::{Act, Move, When};
use super::gitlab::{Body, Call, Fault};
use super::people::Mistakes;
use super::play::{Player, Setup};
use super::world::{CallLog, State};

/// The runner that a row is about.
const REGISTERED: &str = "found";
const CREATED: &str = "created";

/// One call of a life, and what leads to it.
struct Row {
    call: Call,
    name: &'static str,
    setup: Setup,
    before: &'static [Move],
    act: Move,
    /// What a person does once the gateway is gone.
    after: &'static [Move],
}

const NOW: When = When::After(0);
const HOUR: u64 = 3600;

/// A rotation is due at once.
const DUE: Setup = Setup { age: 70_000, ..FRESH };
const FRESH: Setup = Setup { life: 86_400, age: 0, jitter: 0, is_stateless: false, mistakes: Mistakes::Together };

fn rows() -> Vec<Row> {
    let start = Move(NOW, Act::StartDaemon);
    vec![
        Row { call: Call::Verify, name: REGISTERED, setup: FRESH, before: &[], act: start.clone(), after: &[] },
        Row { call: Call::Reset, name: REGISTERED, setup: DUE, before: &[], act: start.clone(), after: &[] },
        Row {
            call: Call::Reset,
            name: REGISTERED,
            setup: FRESH,
            before: &[Move(NOW, Act::Verify(0))],
            act: Move(NOW, Act::Rotate(0)),
            after: &[],
        },
        Row {
            call: Call::ResetById,
            name: REGISTERED,
            setup: FRESH,
            before: &[Move(NOW, Act::Verify(0))],
            act: Move(NOW, Act::RotateById(0)),
            after: &[],
        },
        Row {
            call: Call::Register,
            name: "build-1",
            setup: FRESH,
            before: &[Move(NOW, Act::Enroll(0))],
            act: start.clone(),
            // A registration that may have been executed is not repeated by itself.
            after: &[Move(NOW, Act::Hangup)],
        },
        Row {
            call: Call::Register,
            name: "build-1",
            setup: FRESH,
            before: &[],
            act: Move(NOW, Act::Register(0)),
            // A token in the answer is asked about twice, a minute apart.
            after: &[Move(NOW, Act::RegisterForce(0)), Move(When::After(61), Act::Register(0))],
        },
        Row {
            call: Call::Probe,
            name: "build-1",
            setup: FRESH,
            before: &[Move(NOW, Act::Enroll(0))],
            act: start,
            after: &[],
        },
        Row {
            call: Call::Probe,
            name: "build-1",
            setup: FRESH,
            before: &[],
            act: Move(NOW, Act::Register(0)),
            // Nothing was sent, so the same command once more is enough.
            after: &[Move(NOW, Act::Register(0))],
        },
        Row {
            call: Call::DeleteRunner,
            name: REGISTERED,
            setup: FRESH,
            before: &[Move(NOW, Act::Verify(0))],
            act: Move(NOW, Act::Unregister(0)),
            after: &[],
        },
        Row {
            call: Call::DeleteRunner,
            name: REGISTERED,
            setup: FRESH,
            before: &[Move(NOW, Act::UnregisterPolicy(2)), Move(NOW, Act::StartDaemon)],
            act: Move(When::After(60), Act::Terminate),
            after: &[],
        },
        Row {
            call: Call::DeleteManager,
            name: CREATED,
            setup: FRESH,
            before: &[Move(NOW, Act::Verify(1))],
            act: Move(NOW, Act::Unregister(1)),
            after: &[],
        },
    ]
}

/// Whether GitLab documents this answer for the call.
fn is_documented(call: Call, status: u16) -> bool {
    matches!((call, status), (Call::DeleteRunner | Call::DeleteManager, 204))
}

/// What must stay as it is: the tokens of the entries and of the records.
fn kept(state: &State) -> (Vec<String>, Vec<String>) {
    let entries = state.files.entries.iter();
    let entries = entries.map(|entry| format!("{:?} {:?} {:?}", entry.name, entry.id, entry.token)).collect();
    let records = state.files.records.values().filter(|record| record.credential.is_some());
    let records = records.map(|record| format!("{} {:?} {:?}", record.key, record.id, record.credential)).collect();
    (entries, records)
}

fn changes(call: Call) -> bool {
    !matches!(call, Call::Verify | Call::Probe | Call::Managers | Call::Any)
}

/// A request that changes something and came too early.
fn too_early(log: &[CallLog], about: Call) -> Option<&CallLog> {
    let faulted = log.iter().position(|entry| entry.is_faulted)?;
    let rest = &log[faulted + 1..];
    let subject = &log[faulted].about;
    let mut repeats = u32::from(about == Call::DeleteManager);
    for entry in rest {
        let settles = if matches!(about, Call::Register | Call::Probe) { Call::Probe } else { Call::Verify };
        if entry.call == settles && !entry.is_faulted {
            return None;
        }
        if changes(entry.call) && (entry.about == *subject || matches!(about, Call::ResetById | Call::Probe)) {
            if repeats == 0 || entry.call != about {
                return Some(entry);
            }
            repeats -= 1;
        }
    }
    None
}

/// Plays one answer; the error says what was wrong.
async fn answer_of_a_gateway(row: &Row, status: u16, body: Body) -> Result<(), String> {
    let mut player = Player::new(row.setup, false);
    for next in row.before {
        player.make(next).await;
    }
    player.make(&Move(When::After(1), Act::Fault(row.call, Fault::Gateway(status, body)))).await;
    player.world.state().log = Some(Vec::new());
    let before = kept(&player.world.state());
    player.make(&row.act).await;
    // Until just after the answer: what comes later is asked of GitLab again.
    let is_kept = |state: &State| {
        let (entries, records) = kept(state);
        let records_kept = before.1.iter().all(|record| records.contains(record));
        entries.starts_with(&before.0) && (records_kept || before.1.is_empty())
    };
    let log = player.world.state().log.clone().unwrap_or_default();
    if row.call != Call::Verify && !log.iter().any(|entry| entry.is_faulted) {
        player.pass(2).await;
    }
    if !player.world.state().log.iter().flatten().any(|entry| entry.is_faulted) {
        return Err("the request was not sent".to_owned());
    }
    let has_gone_on = player.world.state().log.iter().flatten().skip_while(|entry| !entry.is_faulted).count() > 1;
    if !has_gone_on && !is_kept(&player.world.state()) {
        return Err(format!("before: {before:?}, after: {:?}", kept(&player.world.state())));
    }
    player.pass(HOUR / 4).await;
    if let Some(early) = too_early(player.world.state().log.as_deref().unwrap_or_default(), row.call) {
        return Err(format!("{early:?} came before a verification was answered"));
    }
    for next in row.after {
        player.make(next).await;
    }
    player.make(&Move(NOW, Act::UnregisterPolicy(0))).await;
    player.make(&Move(NOW, Act::StartDaemon)).await;
    player.pass(HOUR).await;
    let result = goes_on(&player.world.state(), row);
    player.kill_all().await;
    result
}

/// Whether config.toml holds what GitLab accepts.
fn goes_on(state: &State, row: &Row) -> Result<(), String> {
    if let Some(violation) = state.violations.first() {
        return Err(format!("{violation:?}"));
    }
    let repeated = state.log.iter().flatten().filter(|entry| entry.call == row.call).count() > 1;
    if row.call == Call::DeleteManager && repeated {
        // Sent once more, and done.
        return Ok(());
    }
    let entry = state.files.entries.iter().find(|entry| entry.name.as_deref() == Some(row.name));
    let token = entry.and_then(super::world::literal).ok_or_else(|| format!("`{}` has no entry", row.name))?;
    state.gitlab.find(token, state.now()).ok_or_else(|| format!("the token of `{}` is not accepted", row.name))?;
    if row.call == Call::Reset && row.setup == DUE && token.ends_with("00001") {
        return Err("the rotation never came".to_owned());
    }
    Ok(())
}

/// Plays every so-manieth status from this one on, with every body.
fn answers_from(first: usize, stride: usize) -> (usize, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for row in rows() {
        for status in (200..=599).skip(first).step_by(stride).filter(|status| !is_documented(row.call, *status)) {
            for body in Body::ALL {
                let played = LocalSet::new().block_on(&runtime, answer_of_a_gateway(&row, status, body));
                count += 1;
                wrong.extend(
                    played.err().map(|error| format!("{:?} {:?} {status} {body:?}: {error}", row.call, row.act)),
                );
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
    let (mut count, mut wrong) = (0, Vec::new());
    for player in players {
        let (played, errors) = player.join().unwrap();
        count += played;
        wrong.extend(errors);
    }
    let some: Vec<_> = wrong.iter().take(40).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), some.join("\n"));
    #[expect(clippy::print_stdout, reason = "the stage of .ci/run shows it")]
    {
        println!("{count} answers of a gateway");
    }
}
