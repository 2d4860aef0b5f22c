//! Each row of the table, one decision at a time.

use std::time::Duration;

use super::*;
use crate::model::{Boot, MAX_LINKS, SharedChange, Timestamp};

const CONFIRM_AFTER: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(6 * 3600);

fn token(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn at(secs: u64) -> Stamp {
    let since_boot_ms = secs * 1000;
    Stamp { at: Timestamp::from_millis(since_boot_ms as i64), boot: Boot(1), since_boot_ms }
}

fn sender(number: u64) -> Sender {
    Sender { machine: format!("s_{number:012}").parse().unwrap(), boot: 1 }
}

fn lineage(names: &[&str]) -> Lineage {
    let [first, next @ ..] = names else { unreachable!("a lineage has a token") };
    next.iter().fold(Lineage::first(token(first)), |lineage, name| lineage.with_next(token(name)))
}

fn accepted(secs: u64) -> Shown {
    Shown::default().with_acceptance(at(secs), false)
}

fn refused(times: &[u64]) -> Shown {
    times.iter().fold(Shown::default(), |shown, secs| shown.with_refusal(at(*secs)))
}

/// Proven dead from 160 s on.
fn dead() -> Shown {
    refused(&[100, 170])
}

/// One machine's view at 300 s.
struct Case {
    ours: Option<Lineage>,
    held: Vec<Digest>,
    journal: Journal,
    stored: Stored,
    shown: Vec<(&'static str, Shown)>,
    has_left: bool,
}

impl Case {
    fn new(ours: &[&str], stored: &[&str]) -> Self {
        let of = |names: &[&str]| (!names.is_empty()).then(|| lineage(names));
        let stored = Stored { lineage: of(stored), pending: None, is_pending_overdue: false, is_foreign: false };
        Self { ours: of(ours), held: Vec::new(), journal: Journal::Empty, stored, shown: Vec::new(), has_left: false }
    }

    fn shown(mut self, name: &'static str, shown: Shown) -> Self {
        self.shown.push((name, shown));
        self
    }

    fn held(mut self, names: &[&str]) -> Self {
        self.held = names.iter().map(|name| token(name)).collect();
        self
    }

    fn pending(mut self, number: u64, is_overdue: bool) -> Self {
        let pending = SharedPending { change: SharedChange::Reset, sender: sender(number), token: None, number: 1 };
        (self.stored.pending, self.stored.is_pending_overdue) = (Some(pending), is_overdue);
        self
    }

    fn step(&self) -> SharedStep {
        self.view(|view| view.next_step())
    }

    fn view<T>(&self, decide: impl FnOnce(View<'_, &dyn Fn(Digest) -> Shown>) -> T) -> T {
        let find = |digest: Digest| self.shown.iter().find(|(name, _)| token(name) == digest);
        decide(View {
            own: &sender(1),
            ours: self.ours.as_ref(),
            held: &self.held,
            journal: self.journal,
            stored: &self.stored,
            shown: &|digest| find(digest).map(|(_, shown)| *shown).unwrap_or_default(),
            now: at(300),
            confirm_after: CONFIRM_AFTER,
            look_again: LOOK_AGAIN,
            has_left: self.has_left,
        })
    }
}

fn written(case: &Case) -> (u64, Digest, bool) {
    match case.step() {
        SharedStep::Write { lineage, is_fork } => (lineage.generation(), lineage.token(), is_fork),
        other => panic!("{other:?}"),
    }
}

fn ask(name: &str) -> SharedStep {
    SharedStep::Ask(token(name))
}

#[test]
fn registration_is_written_at_once_over_its_own_change() {
    for journal in [Journal::Empty, Journal::Answered] {
        let case = Case { journal, ..Case::new(&["a"], &[]).pending(1, false) };
        assert_eq!(written(&case.shown("a", accepted(200))), (1, token("a"), false));
    }
}

#[test]
fn one_token_that_is_accepted_is_left_alone_and_a_left_over_change_is_cleared() {
    let same = || Case::new(&["a", "b"], &["a", "b"]);
    assert_eq!(same().step(), ask("b"));
    assert_eq!(same().shown("b", accepted(200)).step(), SharedStep::Rest);
    assert_eq!(same().shown("b", accepted(200)).pending(2, false).step(), SharedStep::Rest);
    assert_eq!(same().shown("b", accepted(200)).pending(2, true).step(), SharedStep::ClearPending);
    // Its own, which its journal knows nothing of any more.
    assert_eq!(same().pending(1, false).step(), SharedStep::ClearPending);
}

#[test]
fn a_dead_token_is_replaced_by_one_that_was_held_and_is_accepted_after_that() {
    let same = || Case::new(&["a", "b"], &["a", "b"]).held(&["b", "a"]);
    assert_eq!(same().shown("b", refused(&[100])).step(), ask("b"), "one refusal proves nothing");
    assert_eq!(same().shown("b", refused(&[100, 130])).step(), ask("b"), "nor do two that are close");
    let dead_b = || same().shown("b", dead());
    assert_eq!(dead_b().step(), ask("a"));
    assert_eq!(dead_b().shown("a", accepted(150)).step(), ask("a"), "a replica that lags accepts it for a while");
    assert_eq!(written(&dead_b().shown("a", accepted(160))), (3, token("a"), false));
    assert_eq!(dead_b().shown("a", refused(&[200])).step(), SharedStep::Recover);
    assert_eq!(dead_b().shown("a", refused(&[200])).pending(2, false).step(), SharedStep::Wait);
    assert_eq!(dead_b().shown("a", refused(&[200])).pending(2, true).step(), SharedStep::Recover);
}

#[test]
fn an_answer_that_no_store_has_is_given_up_for_a_newer_token_only_once_it_is_dead() {
    let newer = || Case { journal: Journal::Answered, ..Case::new(&["a", "x"], &["a", "b", "c"]) };
    // Of two tokens that are both accepted, one is dead, and a replica that lags does not know that yet.
    let both = |ours, stored| newer().shown("x", accepted(ours)).shown("c", accepted(stored));
    assert_eq!(both(200, 210).step(), ask("x"));
    assert_eq!(both(220, 210).step(), ask("c"));
    assert_eq!(
        newer().shown("x", refused(&[200])).shown("c", accepted(210)).step(),
        ask("x"),
        "one refusal proves nothing"
    );
    assert_eq!(newer().shown("x", dead()).shown("c", accepted(210)).step(), SharedStep::Project);
    let last = newer().shown("x", accepted(200)).shown("c", dead());
    assert_eq!(written(&last).1, token("x"));
}

#[test]
fn a_newer_token_is_projected_once_it_is_accepted_however_far_it_is_ahead() {
    for stored in [&["a", "b", "c"][..], &["a", "b", "c", "d", "e", "f", "g", "c"]] {
        let newer = || Case::new(&["a", "b"], stored);
        assert_eq!(newer().step(), ask("c"));
        assert_eq!(newer().shown("c", accepted(200)).step(), SharedStep::Project);
        let another = Shown::default().with_acceptance(at(200), true);
        assert_eq!(newer().shown("c", another).step(), SharedStep::Refuse, "it is another runner's");
        assert_eq!(newer().shown("c", dead()).step(), ask("b"));
        let generation = stored.len() as u64 + 1;
        let ours = newer().shown("c", dead()).shown("b", accepted(200));
        assert_eq!(written(&ours), (generation, token("b"), false), "GitLab was restored");
        assert_eq!(newer().shown("c", dead()).shown("b", dead()).step(), SharedStep::TakeOver);
    }
}

#[test]
fn an_older_token_is_written_over_only_if_it_is_dead_or_was_replaced_by_this_machine() {
    let older = || Case::new(&["a", "b", "c"], &["a", "b"]);
    assert_eq!(older().step(), ask("b"));
    assert_eq!(older().shown("c", accepted(200)).step(), ask("b"));
    assert_eq!(older().shown("c", accepted(200)).shown("b", accepted(250)).step(), ask("c"), "both cannot be good");
    assert_eq!(older().shown("c", accepted(250)).shown("b", accepted(200)).step(), ask("b"));
    assert_eq!(written(&older().shown("b", dead()).shown("c", accepted(200))), (3, token("c"), false));
    assert_eq!(older().shown("b", dead()).shown("c", accepted(150)).step(), ask("c"));
    assert_eq!(written(&older().shown("c", dead()).shown("b", accepted(200))), (4, token("b"), false));
    assert_eq!(older().shown("c", dead()).shown("b", dead()).step(), SharedStep::TakeOver);
    let published = Case { journal: Journal::Answered, ..older() };
    assert_eq!(written(&published), (3, token("c"), false));
    assert_eq!(Case { journal: Journal::Begun, ..older() }.step(), SharedStep::Settle);
}

#[test]
fn two_tokens_that_did_not_grow_from_each_other_are_reported() {
    let fork = || Case::new(&["a", "b", "x"], &["a", "b", "y"]);
    let ours = fork().shown("y", dead()).shown("x", accepted(200));
    assert_eq!(written(&ours), (4, token("x"), true));
    let theirs = fork().shown("x", dead()).shown("y", accepted(200));
    assert_eq!(written(&theirs), (4, token("y"), true));
}

#[test]
fn an_empty_store_gets_what_a_machine_has_and_only_one_without_any_registers() {
    assert_eq!(Case::new(&[], &[]).step(), SharedStep::Register);
    assert_eq!(Case::new(&[], &[]).pending(2, false).step(), SharedStep::Wait);
    assert_eq!(Case::new(&[], &[]).pending(2, true).step(), SharedStep::Register);
    assert_eq!(written(&Case::new(&["a", "b"], &[]).shown("b", accepted(200))), (2, token("b"), false));
    assert_eq!(Case::new(&[], &["a"]).step(), ask("a"));
    assert_eq!(Case::new(&[], &["a"]).shown("a", accepted(200)).step(), SharedStep::Project);
}

#[test]
fn the_value_of_another_runner_is_never_touched() {
    let mut foreign = Case::new(&["a"], &["b", "c"]).shown("a", accepted(200)).shown("c", dead());
    foreign.stored.is_foreign = true;
    assert_eq!(foreign.step(), SharedStep::Refuse);
    assert_eq!(foreign.pending(1, true).step(), SharedStep::Refuse);
}

#[test]
fn a_lineage_keeps_its_last_links_and_goes_on_from_both_that_it_unites() {
    let long =
        (0..100_u8).fold(Lineage::first(token("first")), |lineage, number| lineage.with_next(Digest::of(&[number])));
    assert_eq!((long.generation(), long.links().count()), (101, MAX_LINKS));
    assert!(long.has(long.newest()) && !long.has(Lineage::first(token("first")).newest()));
    assert!(long.reaches(101 - MAX_LINKS as u64 + 1) && !long.reaches(101 - MAX_LINKS as u64));
    let (ours, stored) = (lineage(&["a", "x"]), lineage(&["a", "y", "z"]));
    let united = ours.over(&stored, token("x"));
    assert_eq!(united.generation(), 4);
    assert!(ours.links().chain(stored.links()).all(|link| united.has(link)));
    // One that was away finds its link.
    assert!(united.has(stored.newest()) && united.has(ours.newest()));
}

#[test]
fn sender_of_a_change_is_waited_for_until_its_answer_is_long_due() {
    let secs = Duration::from_secs;
    for (request_timeout, left, wait) in [
        (secs(30), None, secs(90)),
        (secs(120), None, secs(180)),
        (secs(30), Some(secs(86_400)), secs(90)),
        (secs(30), Some(secs(80)), secs(10)),
        // An expired token has no time left to be saved.
        (secs(30), Some(Duration::ZERO), secs(90)),
        (Duration::MAX, None, Duration::MAX),
    ] {
        assert_eq!(pending_wait(request_timeout, left), wait, "{request_timeout:?} {left:?}");
    }
}

#[test]
fn one_refusal_by_the_store_proves_nothing() {
    for (secs, is_proven) in [(0, false), (4, false), (5, true), (3600, true)] {
        assert_eq!(is_store_refusal_proven(Duration::from_secs(secs)), is_proven, "{secs}");
    }
}

#[test]
fn store_that_fails_is_asked_less_and_less() {
    let secs = Duration::from_secs;
    let pauses = |life| {
        (0..8).map(move |failures| watch_pause(failures, life, Fraction::from_bits(u32::MAX)).as_secs_f64().round())
    };
    assert_eq!(pauses(None).collect::<Vec<_>>(), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
    assert_eq!(pauses(Some(secs(160))).collect::<Vec<_>>(), [1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]);
    assert_eq!(watch_pause(u32::MAX, None, Fraction::ZERO), secs(15));
}

#[test]
fn token_goes_into_an_empty_store_only_once_it_is_accepted() {
    let case = || Case::new(&["a", "b"], &[]);
    assert_eq!(case().step(), ask("b"));
    assert_eq!(case().shown("b", refused(&[200])).step(), ask("b"));
    assert_eq!(written(&case().shown("b", accepted(200))), (2, token("b"), false));
    assert_eq!(case().shown("b", dead()).step(), SharedStep::Recover);
    // It has just come from GitLab.
    let answered = Case { journal: Journal::Answered, ..case() };
    assert_eq!(written(&answered), (2, token("b"), false));
    // GitLab was restored.
    assert_eq!(written(&case().held(&["b", "a"]).shown("b", dead()).shown("a", accepted(200))), (3, token("a"), false));
}

#[test]
fn machine_that_had_left_comes_anew_to_a_runner_that_is_gone() {
    let left =
        |stored: &[&str], shown: Shown| Case { has_left: true, ..Case::new(&["a", "b"], stored).shown("b", shown) };
    let joins = |case: &Case, is_other: bool| case.view(|view| view.joins_anew(is_other));
    assert!(joins(&left(&[], dead()), false));
    assert!(joins(&left(&["c"], dead()), true));
    assert!(!joins(&left(&["a", "b", "c"], dead()), false), "it is the same runner");
    assert!(!joins(&left(&[], refused(&[200])), false), "one refusal proves nothing");
    assert!(!joins(&left(&[], accepted(200)), false));
    assert!(!joins(&left(&[], dead()).held(&["b", "a"]), false), "the other token was not asked about");
    assert!(joins(&left(&[], dead()).held(&["b", "a"]).shown("a", refused(&[200])), false));
    let stays = Case { has_left: false, ..left(&[], dead()) };
    assert!(!joins(&stays, false), "a person decides");
    let begun = Case { journal: Journal::Begun, ..left(&[], dead()) };
    assert!(!joins(&begun, false));
}
