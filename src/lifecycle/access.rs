//! When an access token is asked about and rotated, and what a lost answer to its rotation means.
//!
//! GitLab revokes the successor of a token that is rotated again, so the rules differ from those of a runner's token: a
//! rotation is never repeated unless the server has accepted the old token long after it was sent.

use std::time::Duration;

use super::Fraction;
use crate::model::{AccessRecord, AccessTokenFacts, AccessTokenOwner, AccessTokenState, Timestamp};
use crate::secret::{Digest, Token};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest interval between two questions about an accepted token.
pub const ASK_INTERVAL: Duration = DAY;

/// How much shorter an interval is at most: a regular use from elsewhere would otherwise always be equally old, like one of
/// another clock.
const ASK_SPREAD: Duration = Duration::from_secs(3600);

/// How long after a rotation without an answer an acceptance of the old token may come from a replica that does not know of
/// the rotation.
pub const SETTLE_AFTER: Duration = Duration::from_secs(600);

/// The pause while another process works on the token's file.
pub const LOCKED_PAUSE: Duration = Duration::from_secs(5);

/// Minimum time between two refusals of which the second one counts.
pub const CONFIRM_AFTER: Duration = MINUTE;

/// The life that is asked for if neither the settings nor the present token say one.
pub const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long before the last third of the life a rotation begins, at most.
const LEAD: Duration = Duration::from_secs(3600);

/// Which part of the life the rotations of machines with copies of one token are spread over.
const SPREAD: u32 = 20;

/// First and longest delay after a question that was not answered.
const BACKOFF: (Duration, Duration) = (MINUTE, Duration::from_secs(3600));

/// How many tokens are remembered that no rotation is sent with.
const MAX_SPENT: usize = 64;

/// How far the estimate of server time may be off, in which own uses are known.
const USE_SLACK: Duration = MINUTE;

/// How old the last use is at least that is not the question itself: the `Date` of an answer and the times in it come from
/// different clocks.
const AGE_SLACK: Duration = Duration::from_secs(10);

/// How much two ages of a last use differ at least that do not come from two clocks which disagree all the time.
const AGE_DIFFERENCE: Duration = Duration::from_secs(5);

/// How far ahead of the present a time may lie that was remembered. One further ahead comes from a clock that was wrong.
const AHEAD: Duration = MINUTE;

/// The pause between two attempts to store a new token that is in memory alone.
pub const STORE_PAUSE: Duration = Duration::from_secs(10);

/// How the access token of a server is kept (`[[server]] access_token`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessKeeping {
    /// Whether it is rotated.
    pub rotate: bool,
    /// The life of a new one; `None` for as long as that of the present one.
    pub life: Option<Duration>,
    /// Whose it is.
    pub owner: AccessTokenOwner,
    /// What happens if it is used from elsewhere.
    pub used_elsewhere: UsedElsewhere,
}

/// Whether a token that is used from elsewhere too is rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsedElsewhere {
    /// No: it is reported.
    #[default]
    Report,
    /// Yes.
    Rotate,
}

/// What is against a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessObstacle {
    /// The settings do not ask for it.
    NotAsked,
    /// The token never ends.
    Endless,
    /// The server does not say when it ends.
    NotKnown,
    /// A rotation was sent with it before.
    Spent,
    /// It has neither `api` nor `self_rotate`.
    Scope,
    /// It is used from elsewhere.
    UsedElsewhere,
}

impl AccessObstacle {
    /// In words, for a person.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "its rotation is off in the settings",
            Self::Endless => "it never ends",
            Self::NotKnown => "the server does not say when it ends",
            Self::Spent => {
                "a rotation was sent with it before, and another one could revoke its successor: make a new token in GitLab and put it into the file"
            }
            Self::Scope => {
                "it has neither the scope `self_rotate` nor `api`: make a token with one of them and put it into the file"
            }
            Self::UsedElsewhere => {
                "it is used from elsewhere too, where it would stop working: give the agent a token of its own, or say used_elsewhere = \"rotate\""
            }
        }
    }
}

/// How soon a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessWarning {
    /// Within 30 days, or a third of its life if that is shorter.
    Soon,
    /// Within 7 days, or a tenth of its life if that is shorter.
    VerySoon,
}

/// When a token is rotated: shortly before the last third of its life begins, or a little earlier. `None` for one that
/// never ends.
///
/// Machines that have copies of one token draw different times. The first one kills the token of the others, which ask
/// about it before they rotate it; so none of them sends a second rotation, unless a replica is behind by chance.
#[must_use]
pub fn rotation_at(record: &AccessRecord) -> Option<Timestamp> {
    let facts = record.facts.as_ref()?;
    let expires_at = facts.expires_at?;
    let life = life_of(facts).unwrap_or(LIFE);
    let earlier = Fraction::from_bits(record.spread.unwrap_or_default()).of(life / SPREAD);
    Some(expires_at.minus(life / 3).minus(LEAD.min(life / 48)).minus(earlier))
}

/// What is against a rotation by the settings and by what is known about the token.
#[must_use]
pub fn obstacle(record: &AccessRecord, keeping: &AccessKeeping) -> Option<AccessObstacle> {
    if !keeping.rotate {
        return Some(AccessObstacle::NotAsked);
    }
    let Some(facts) = &record.facts else { return Some(AccessObstacle::NotKnown) };
    if record.is_spent() {
        return Some(AccessObstacle::Spent);
    }
    if !facts.scopes.iter().any(|scope| scope == "api" || scope == "self_rotate") {
        return Some(AccessObstacle::Scope);
    }
    if facts.expires_at.is_none() {
        return Some(AccessObstacle::Endless);
    }
    let is_used = record.uses_elsewhere > 1 && keeping.used_elsewhere == UsedElsewhere::Report;
    is_used.then_some(AccessObstacle::UsedElsewhere)
}

/// When the token is asked about next, after an acceptance. `drawn` are random bits.
#[must_use]
pub fn next_at(record: &AccessRecord, keeping: &AccessKeeping, now: Timestamp, drawn: u32) -> Timestamp {
    let daily = now.plus(ASK_INTERVAL).minus(Fraction::from_bits(drawn).of(ASK_SPREAD));
    let due_at = rotation_at(record);
    match due_at.filter(|_| obstacle(record, keeping).is_none()) {
        // A rotation that is due and was not made is tried again daily, or once a person asks.
        Some(due_at) if due_at > now => due_at.min(daily),
        Some(_) | None => daily,
    }
}

/// The delay after this many questions in a row without an answer.
#[must_use]
pub fn backoff(failures: u32, retry_after: Option<Duration>) -> Duration {
    let (first, longest) = BACKOFF;
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(longest);
    doubled.max(retry_after.unwrap_or_default().min(DAY))
}

/// The last day of a new token, at 00:00 UTC of which it ends. It is as many days ahead as the life has, and at least a
/// whole day.
#[must_use]
pub fn new_expiry(facts: Option<&AccessTokenFacts>, keeping: &AccessKeeping, now: Timestamp) -> Timestamp {
    let life = keeping.life.or_else(|| facts.and_then(whole_life)).unwrap_or(LIFE);
    let expires_at = now.plus(life).start_of_day();
    if expires_at.since(now) < DAY { now.plus(DAY + DAY).start_of_day() } else { expires_at }
}

/// How soon a token ends; `None` for later, and for one that never ends.
#[must_use]
pub fn warning(facts: &AccessTokenFacts, now: Timestamp) -> Option<AccessWarning> {
    let left = facts.expires_at?.since(now);
    let life = life_of(facts).unwrap_or(Duration::MAX);
    if left <= (7 * DAY).min(life / 10) {
        Some(AccessWarning::VerySoon)
    } else {
        (left <= (30 * DAY).min(life / 3)).then_some(AccessWarning::Soon)
    }
}

/// A time that was remembered, unless it lies ahead of the present: then the clock that it comes from was wrong.
fn past(at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (at <= now.plus(AHEAD)).then_some(at)
}

/// From when on rotations with one token, of which no answer is known, are waited for: server time at which the last one was
/// sent. If a time lies ahead, that of the first look at it takes its place. `None` without one.
pub fn settles_from(record: &mut AccessRecord, sent_at: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    let ahead = sent_at.iter().copied().filter(|at| past(*at, now).is_none()).max();
    let looked_at = ahead.map(|ahead| {
        let known = record.settles_from.filter(|(of, _)| *of == ahead).and_then(|(_, at)| past(at, now));
        let since = known.unwrap_or(now);
        record.settles_from = Some((ahead, since));
        since
    });
    sent_at.iter().filter_map(|at| past(*at, now)).chain(looked_at).max()
}

/// How much longer an acceptance of the token of a rotation may come from a replica that does not know of the rotation;
/// `None` if it cannot any more. `from` is as of [`settles_from`].
#[must_use]
pub fn settling(from: Timestamp, now: Timestamp) -> Option<Duration> {
    SETTLE_AFTER.checked_sub(now.since(from)).filter(|left| !left.is_zero())
}

/// Whether the token was rotated so recently that a replica may not know the new one yet.
#[must_use]
pub fn is_new(record: &AccessRecord, now: Timestamp) -> bool {
    record.rotated_at.and_then(|at| past(at, now)).is_some_and(|at| settling(at, now).is_some())
}

/// After what time another refusal of the token of a rotation without an answer means that its successor is lost; `None` if
/// this one does.
#[must_use]
pub fn confirming(record: &AccessRecord, now: Timestamp) -> Option<Duration> {
    let since = record.refused_at.and_then(|at| past(at, now)).map(|at| now.since(at)).unwrap_or_default();
    CONFIRM_AFTER.checked_sub(since).filter(|left| !left.is_zero())
}

/// The state as reported. `is_pending` says that a rotation was sent whose answer is not known.
#[must_use]
pub fn state(record: &AccessRecord, is_pending: bool, now: Timestamp) -> AccessTokenState {
    let Some(facts) = &record.facts else {
        return match record {
            _ if record.lost_at.is_some() => AccessTokenState::Lost,
            _ if is_pending => AccessTokenState::Uncertain,
            _ if record.refused_at.is_some() => AccessTokenState::Refused,
            _ => AccessTokenState::Unknown,
        };
    };
    match record {
        _ if record.lost_at.is_some() => AccessTokenState::Lost,
        _ if is_pending => AccessTokenState::Uncertain,
        _ if record.refused_at.is_some() || !facts.active => AccessTokenState::Refused,
        _ if warning(facts, now).is_some() => AccessTokenState::Expiring,
        _ => AccessTokenState::Active,
    }
}

/// Why the server refuses a rotation that the settings ask for and that is due.
#[must_use]
pub fn declined<'r>(record: &'r AccessRecord, keeping: &AccessKeeping, now: Timestamp) -> Option<&'r str> {
    let is_due = rotation_at(record).is_some_and(|due_at| due_at <= now);
    record.declined.as_deref().filter(|_| keeping.rotate && is_due)
}

/// The server accepts the token, and its answer took this long. `drawn` are random bits.
///
/// The question itself is a use. GitLab notes one only if the last one was noted a while ago: a minute, ten minutes or a
/// day, depending on the release. So a use from elsewhere shows if it came at most that long before the question: the last
/// use is older then than the question. If it is always older by the same time, the clocks of the server disagree.
pub fn accepted(record: &mut AccessRecord, facts: AccessTokenFacts, now: Timestamp, took: Duration, drawn: u32) {
    let own_use = record.asked_at.max(record.last_use).and_then(|at| past(at, now));
    let age = facts.last_used_at.map(|used_at| now.minus(took).since(used_at));
    if let (Some(used_at), Some(age), Some(own_use)) = (facts.last_used_at, age, own_use) {
        let differs = record.use_age.is_some_and(|former| former.abs_diff(age) > AGE_DIFFERENCE);
        let is_elsewhere = used_at > own_use.plus(USE_SLACK) && age > AGE_SLACK && differs;
        record.uses_elsewhere += u32::from(is_elsewhere);
    }
    record.use_age = age.or(record.use_age);
    accepted_new(record, facts, now, drawn);
}

/// The server accepts a token that was just made: its only use is the question.
pub fn accepted_new(record: &mut AccessRecord, facts: AccessTokenFacts, now: Timestamp, drawn: u32) {
    record.spread.get_or_insert(drawn);
    record.facts = Some(facts);
    record.asked_at = Some(now);
    record.refused_at = None;
    record.is_unsupported = false;
}

/// Processes of this agent have used the token at this server time.
pub fn used(record: &mut AccessRecord, at: Option<Timestamp>, now: Timestamp) {
    record.last_use = [record.last_use, at].into_iter().flatten().filter_map(|at| past(at, now)).max();
}

/// The server refuses the token.
pub fn refused(record: &mut AccessRecord, now: Timestamp) {
    record.refused_at = record.refused_at.and_then(|at| past(at, now)).or(Some(now));
}

/// The rotation with the present token whose answer was lost was not executed: another one may be sent with it.
pub fn not_executed(record: &mut AccessRecord) {
    record.lost_at = None;
    record.settles_from = None;
    let token = record.token.as_ref().map(Token::digest);
    record.spent.retain(|spent| Some(*spent) != token);
}

/// No rotation is sent any more with the present token, whose successor may be lost.
pub fn lost(record: &mut AccessRecord, now: Timestamp) {
    record.lost_at = Some(now);
    spend(record, record.token.as_ref().map(Token::digest));
}

/// Remembers that no rotation may be sent with a token.
pub fn spend(record: &mut AccessRecord, token: Option<Digest>) {
    let Some(token) = token.filter(|token| !record.spent.contains(token)) else { return };
    record.spent.push(token);
    let excess = record.spent.len().saturating_sub(MAX_SPENT);
    record.spent.drain(..excess);
}

fn life_of(facts: &AccessTokenFacts) -> Option<Duration> {
    Some(facts.expires_at?.since(facts.created_at?)).filter(|life| !life.is_zero())
}

/// The life in whole days, as it was asked for: a token is made at some time of its first day.
fn whole_life(facts: &AccessTokenFacts) -> Option<Duration> {
    Some(facts.expires_at?.since(facts.created_at?.start_of_day())).filter(|life| !life.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn facts(created_at: &str, expires_on: &str) -> AccessTokenFacts {
        AccessTokenFacts {
            id: 1,
            name: "agent".to_owned(),
            scopes: vec!["api".to_owned()],
            active: true,
            revoked: false,
            created_at: Some(at(created_at)),
            last_used_at: None,
            expires_at: Some(Timestamp::from_date(expires_on).unwrap()),
        }
    }

    fn record(facts: AccessTokenFacts) -> AccessRecord {
        let token = Some(Token::parse("glpat-a").unwrap());
        AccessRecord { token, facts: Some(facts), ..AccessRecord::default() }
    }

    fn rotating() -> AccessKeeping {
        AccessKeeping { rotate: true, ..AccessKeeping::default() }
    }

    #[test]
    fn a_rotation_is_due_an_hour_before_the_last_third() {
        let rotation_at = |facts: &AccessTokenFacts| rotation_at(&record(facts.clone()));
        let due = rotation_at(&facts("2026-01-01T00:00:00Z", "2026-04-01"));
        assert_eq!(due, Some(at("2026-03-01T23:00:00Z")));
        let short = rotation_at(&facts("2026-01-01T00:00:00Z", "2026-01-03"));
        assert_eq!(short, Some(at("2026-01-02T07:00:00Z")));
        let endless = AccessTokenFacts { expires_at: None, ..facts("2026-01-01T00:00:00Z", "2026-01-03") };
        assert_eq!(rotation_at(&endless), None);
    }

    #[test]
    fn copies_of_a_token_are_rotated_at_different_times_of_a_twentieth_of_its_life() {
        let due = |spread| {
            let record = AccessRecord { spread, ..record(facts("2026-01-01T00:00:00Z", "2026-04-01")) };
            rotation_at(&record).unwrap()
        };
        assert_eq!(due(Some(0)), at("2026-03-01T23:00:00Z"));
        assert_eq!(due(Some(u32::MAX / 2 + 1)), at("2026-02-27T17:00:00Z"));
        assert!(due(Some(u32::MAX)) > at("2026-02-25T11:00:00Z"));
        let mut record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
        for (drawn, expected) in [(7, Some(7)), (8, Some(7))] {
            let facts = record.facts.clone().unwrap();
            accepted(&mut record, facts, at("2026-01-02T00:00:00Z"), Duration::ZERO, drawn);
            assert_eq!(record.spread, expected);
        }
    }

    #[test]
    fn warnings_come_at_30_and_7_days_or_at_a_third_and_a_tenth_of_a_shorter_life() {
        let (year, month) = (facts("2025-12-31T00:00:00Z", "2026-12-31"), facts("2026-12-01T00:00:00Z", "2026-12-31"));
        for (facts, now, expected) in [
            (&year, "2026-11-30T00:00:00Z", None),
            (&year, "2026-12-01T00:00:00Z", Some(AccessWarning::Soon)),
            (&year, "2026-12-24T00:00:00Z", Some(AccessWarning::VerySoon)),
            (&month, "2026-12-20T23:59:59Z", None),
            (&month, "2026-12-21T00:00:00Z", Some(AccessWarning::Soon)),
            (&month, "2026-12-27T23:59:59Z", Some(AccessWarning::Soon)),
            (&month, "2026-12-28T00:00:00Z", Some(AccessWarning::VerySoon)),
            (&month, "2027-12-28T00:00:00Z", Some(AccessWarning::VerySoon)),
        ] {
            assert_eq!(warning(facts, at(now)), expected, "{now}");
        }
    }

    #[test]
    fn a_new_token_lives_as_asked_or_as_long_as_the_present_one_and_at_least_a_day() {
        let now = at("2026-01-10T15:00:00Z");
        let expiry = |life: Option<u64>, facts: Option<&AccessTokenFacts>| {
            let life = life.map(|days| DAY * u32::try_from(days).unwrap());
            new_expiry(facts, &AccessKeeping { life, ..rotating() }, now).date()
        };
        assert_eq!(expiry(Some(90), None), "2026-04-10");
        assert_eq!(expiry(Some(1), None), "2026-01-12");
        assert_eq!(expiry(None, None), "2026-04-10");
        assert_eq!(expiry(None, Some(&facts("2026-01-01T23:00:00Z", "2026-01-31"))), "2026-02-09");
    }

    #[test]
    fn a_time_of_a_clock_that_was_ahead_holds_up_nothing() {
        let mut record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
        let (ahead, now) = (at("2027-03-02T00:00:00Z"), at("2026-03-02T00:00:00Z"));
        let after = |seconds| now.plus(Duration::from_secs(seconds));
        let from = settles_from(&mut record, &[ahead], now).unwrap();
        assert_eq!((from, settles_from(&mut record, &[ahead], after(600))), (now, Some(now)));
        // One that was sent since counts, too.
        assert_eq!(settles_from(&mut record, &[ahead, after(500)], after(600)), Some(after(500)));
        assert_eq!(settling(from, after(600)), None);
        // The remembered time may come from that clock, too.
        assert_eq!(settles_from(&mut record, &[ahead], now.minus(DAY)), Some(now.minus(DAY)));
        refused(&mut record, ahead);
        assert_eq!(confirming(&record, now), Some(CONFIRM_AFTER));
        refused(&mut record, now);
        assert_eq!(record.refused_at, Some(now));
        record.rotated_at = Some(ahead);
        assert!(!is_new(&record, now));
        used(&mut record, Some(ahead), now);
        assert_eq!(record.last_use, None);
    }

    #[test]
    fn a_refused_rotation_is_reported_while_it_is_due_and_asked_for() {
        let mut record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
        record.declined = Some("400".to_owned());
        let declined = |keeping: &AccessKeeping, now| declined(&record, keeping, at(now));
        assert_eq!(declined(&rotating(), "2026-03-02T00:00:00Z"), Some("400"));
        assert_eq!(declined(&rotating(), "2026-02-02T00:00:00Z"), None);
        assert_eq!(declined(&AccessKeeping::default(), "2026-03-02T00:00:00Z"), None);
    }

    #[test]
    fn a_lost_answer_is_settled_by_a_late_acceptance_or_by_two_refusals() {
        let mut record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
        let sent_at = at("2026-03-02T00:00:00Z");
        let after = |seconds| sent_at.plus(Duration::from_secs(seconds));
        assert_eq!(settling(sent_at, after(599)), Some(Duration::from_secs(1)));
        assert_eq!(settling(sent_at, after(600)), None);
        assert_eq!(confirming(&record, after(900)), Some(CONFIRM_AFTER));
        refused(&mut record, after(900));
        assert_eq!(confirming(&record, after(930)), Some(Duration::from_secs(30)));
        assert_eq!(confirming(&record, after(960)), None);
        lost(&mut record, after(960));
        assert_eq!(obstacle(&record, &rotating()), Some(AccessObstacle::Spent));
        assert_eq!(state(&record, false, after(960)), AccessTokenState::Lost);
        not_executed(&mut record);
        assert_eq!((obstacle(&record, &rotating()), record.lost_at), (None, None));
    }

    #[test]
    fn what_is_against_a_rotation_is_named() {
        let known = facts("2026-01-01T00:00:00Z", "2026-04-01");
        let with = |change: fn(&mut AccessRecord)| {
            let mut record = record(known.clone());
            change(&mut record);
            obstacle(&record, &rotating())
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|record| record.facts = None), Some(AccessObstacle::NotKnown));
        assert_eq!(with(|record| lost(record, Timestamp::EARLIEST)), Some(AccessObstacle::Spent));
        let scopes = |record: &mut AccessRecord, scope: &str| {
            record.facts.as_mut().unwrap().scopes = vec![scope.to_owned()];
        };
        let mut record = record(known.clone());
        scopes(&mut record, "create_runner");
        assert_eq!(obstacle(&record, &rotating()), Some(AccessObstacle::Scope));
        scopes(&mut record, "self_rotate");
        assert_eq!(obstacle(&record, &rotating()), None);
        assert_eq!(obstacle(&record, &AccessKeeping::default()), Some(AccessObstacle::NotAsked));
        assert_eq!(with(|record| record.facts.as_mut().unwrap().expires_at = None), Some(AccessObstacle::Endless));
    }

    #[test]
    fn a_use_from_elsewhere_that_is_seen_twice_is_against_a_rotation_unless_the_settings_allow_it() {
        let mut record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
        let mut ask = |now: &str, used_at: &str, last_use: Option<&str>| {
            let facts =
                AccessTokenFacts { last_used_at: Some(at(used_at)), ..facts("2026-01-01T00:00:00Z", "2026-04-01") };
            record.last_use = last_use.map(at).or(record.last_use);
            accepted(&mut record, facts, at(now), Duration::from_secs(5), 0);
            obstacle(&record, &rotating())
        };
        assert_eq!(ask("2026-02-01T00:00:00Z", "2026-01-20T00:00:00Z", None), None);
        // The last question, and a call of the agent's own.
        assert_eq!(ask("2026-02-02T00:00:00Z", "2026-02-01T00:00:30Z", None), None);
        assert_eq!(ask("2026-02-03T00:00:00Z", "2026-02-02T12:00:00Z", Some("2026-02-02T12:00:00Z")), None);
        assert_eq!(ask("2026-02-04T00:00:00Z", "2026-02-03T15:00:00Z", None), None);
        // A slow answer to the question, which is the last use.
        assert_eq!(ask("2026-02-05T00:00:06Z", "2026-02-05T00:00:00Z", None), None);
        assert_eq!(ask("2026-02-06T00:00:30Z", "2026-02-06T00:00:00Z", None), Some(AccessObstacle::UsedElsewhere));
        let allowed = AccessKeeping { used_elsewhere: UsedElsewhere::Rotate, ..rotating() };
        assert_eq!(obstacle(&record, &allowed), None);
    }

    #[test]
    fn a_use_every_five_minutes_is_seen_although_questions_are_daily() {
        let first = at("2026-01-02T00:04:27Z");
        let seen = |draw: fn(u32) -> u32| {
            let mut record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
            let (mut now, mut noted_at) = (first, first);
            for day in 1..=30 {
                // The server notes a use unless it has noted one in the last ten minutes.
                let asked_at = now;
                let mut used_at = at("2026-01-01T00:00:00Z");
                while used_at.plus(5 * MINUTE) <= asked_at {
                    used_at = used_at.plus(5 * MINUTE);
                    if used_at.since(noted_at) >= 10 * MINUTE {
                        noted_at = used_at;
                    }
                }
                if asked_at.since(noted_at) >= 10 * MINUTE {
                    noted_at = asked_at;
                }
                let facts =
                    AccessTokenFacts { last_used_at: Some(noted_at), ..facts("2026-01-01T00:00:00Z", "2026-04-01") };
                accepted(&mut record, facts, asked_at, Duration::ZERO, 0);
                now = next_at(&record, &AccessKeeping::default(), now, draw(day));
            }
            record.uses_elsewhere > 1
        };
        assert!(seen(|day| day.wrapping_mul(0x9e37_79b9)));
    }

    #[test]
    fn servers_whose_clocks_disagree_all_the_time_show_no_use_from_elsewhere() {
        let mut record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
        for day in 1..=20 {
            let now = at("2026-02-01T00:05:00Z").plus(DAY * day);
            // The gateway's `Date` is five minutes ahead of the times in the answer.
            let last_used_at = Some(now.minus(5 * MINUTE).plus(Duration::from_secs(u64::from(day % 3))));
            let facts = AccessTokenFacts { last_used_at, ..facts("2026-01-01T00:00:00Z", "2026-04-01") };
            accepted(&mut record, facts, now, Duration::ZERO, 0);
        }
        assert_eq!(record.uses_elsewhere, 0);
    }

    #[test]
    fn a_token_is_asked_about_daily_and_when_its_rotation_is_due() {
        let record = record(facts("2026-01-01T00:00:00Z", "2026-04-01"));
        let next = |keeping: &AccessKeeping, now| next_at(&record, keeping, at(now), 0);
        assert_eq!(next(&rotating(), "2026-01-05T00:00:00Z"), at("2026-01-06T00:00:00Z"));
        assert_eq!(next(&rotating(), "2026-03-01T12:00:00Z"), at("2026-03-01T23:00:00Z"));
        assert_eq!(next(&AccessKeeping::default(), "2026-03-01T12:00:00Z"), at("2026-03-02T12:00:00Z"));
        let drawn = next_at(&record, &rotating(), at("2026-01-05T00:00:00Z"), u32::MAX / 2 + 1);
        assert_eq!(drawn, at("2026-01-05T23:30:00Z"));
    }
}
