//! What is known of a runner, an access token, or the settings, and what is to be delivered about it.

use std::collections::{BTreeMap, BTreeSet};

use super::describe::{described, lost};
use super::lanes::Lanes;
use super::{RunnerSight, Sighting, Subject};
use crate::hooks::Hook;
use crate::lifecycle::hooks::{MOST_QUEUED, access_events, announced_runner, event_id, runner_events, settings_events};
use crate::model::{Announced, HookDelivery, HookEvent, HookKind, HookRecord, RunnerKey, Timestamp};
use crate::secret::{Digest, Token, random_bits};

/// A runner, an access token, or the settings.
pub(super) struct Member {
    announced: Option<Announced>,
    /// Counts the events, from a random number: the ids of another member, or of one that was forgotten, differ.
    events: u64,
    /// What is to be delivered, in order.
    queue: Vec<HookDelivery>,
    /// The present token; `None` until the runner was seen.
    pub(super) token: Option<Token>,
    /// Whether it was seen since the start, so that its token is known.
    pub(super) is_seen: bool,
    /// Whether it is enrolled.
    pub(super) is_own: bool,
    /// Whether it is no longer served.
    pub(super) is_dismissed: bool,
    /// The hooks whose file was looked at since the start, or since the settings have changed.
    looked_at: BTreeSet<String>,
    /// Why a hook has failed last, which is logged when it changes.
    errors: BTreeMap<String, String>,
}

/// What was known before a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// What was announced; nothing for a runner that is new.
    Announced,
    /// The runner was there before hooks began, or what was announced of it is lost.
    There,
}

/// What a sighting has changed.
pub(super) struct Change {
    /// Whether there is something to write.
    pub(super) is_news: bool,
    /// What the queue had no room for any more.
    pub(super) dropped: Vec<HookDelivery>,
}

impl Default for Member {
    fn default() -> Self {
        let random = [random_bits(), random_bits()].map(u64::from);
        Self {
            announced: None,
            // Room for counting.
            events: (random[0] << 31) ^ random[1],
            queue: Vec::new(),
            token: None,
            is_seen: false,
            is_own: false,
            is_dismissed: false,
            looked_at: BTreeSet::new(),
            errors: BTreeMap::new(),
        }
    }
}

impl Member {
    /// One that was written, and its key.
    pub(super) fn stored(HookRecord { key, announced, events, queue }: HookRecord) -> (RunnerKey, Self) {
        (key, Self { announced: Some(announced), events, queue, ..Self::default() })
    }

    /// What is to be written; nothing before it was seen once.
    pub(super) fn record(&self, key: &RunnerKey) -> Option<HookRecord> {
        let announced = self.announced.clone()?;
        Some(HookRecord { key: key.clone(), announced, events: self.events, queue: self.queue.clone() })
    }

    /// Compares what is seen with what was announced, and queues the events that lead there.
    pub(super) fn see(&mut self, sighting: &Sighting, former: Former, hooks: &[Hook], lanes: &Lanes) -> Change {
        let Sighting { key, subject, now } = sighting;
        let (announced, kinds) = self.compared(subject, former);
        if let Subject::Runner(sight) = subject {
            self.token.clone_from(&sight.token);
            self.is_own = sight.is_own;
        }
        (self.is_seen, self.is_dismissed) = (true, false);
        let former_id = self.announced.as_ref().and_then(|former| former.id);
        let mut change = Change { is_news: self.announced.as_ref() != Some(&announced), dropped: Vec::new() };
        for kind in kinds {
            self.events += 1;
            let event_id = event_id(key, self.events, kind, announced.token);
            let event = described(event_id, kind, subject, former_id, *now);
            change.dropped.extend(self.queue_for_all(key, &event, hooks, lanes));
        }
        if let Subject::Runner(sight) = subject {
            self.look_after_files(hooks, key, sight, *now);
        }
        self.announced = Some(announced);
        change
    }

    /// The runner is gone without having been unregistered before the agent's eyes. Returns what the queue had no room for
    /// any more.
    pub(super) fn lose(&mut self, key: &RunnerKey, at: Timestamp, hooks: &[Hook], lanes: &Lanes) -> Vec<HookDelivery> {
        let Some(former) = self.announced.replace(Announced::default()) else { return Vec::new() };
        self.events += 1;
        let event = lost(event_id(key, self.events, HookKind::Unregistered, former.token), former, at);
        (self.token, self.is_seen, self.is_dismissed) = (None, true, true);
        self.queue_for_all(key, &event, hooks, lanes)
    }

    fn queue_for_all(
        &mut self,
        key: &RunnerKey,
        event: &HookEvent,
        hooks: &[Hook],
        lanes: &Lanes,
    ) -> Vec<HookDelivery> {
        let wanting = hooks.iter().filter(|hook| hook.is_for(event));
        wanting.filter_map(|hook| self.push(hook, event.clone(), lanes.is_running(&hook.name, key))).collect()
    }

    /// What is announced once this was seen, and the events that lead there.
    fn compared(&self, subject: &Subject, former: Former) -> (Announced, Vec<HookKind>) {
        let known = self.announced.as_ref();
        match subject {
            Subject::Runner(sight) => {
                let nothing = Announced::default();
                let known = known.or((former == Former::Announced).then_some(&nothing));
                let (label, url) = (Some(sight.label.clone()), Some(sight.url.clone()));
                let announced = Announced { label, url, ..announced_runner(known, &sight.seen) };
                (announced, runner_events(known, &sight.seen))
            }
            Subject::AccessToken { token, rotations, .. } => {
                let events = access_events(known, *token, *rotations);
                (Announced { token: *token, rotations: *rotations, ..Announced::default() }, events)
            }
            Subject::Settings(error) => {
                let mistakes = error.as_ref().map(|error| Digest::of(error.as_bytes()));
                let events = settings_events(known, mistakes);
                (Announced { token: mistakes, ..Announced::default() }, events)
            }
        }
    }

    /// Queues an event for a hook. Returns what it displaces.
    fn push(&mut self, hook: &Hook, event: HookEvent, is_running: bool) -> Option<HookDelivery> {
        // The attempt that is under way stays: what comes of it is compared with the queue.
        let of_hook = self.queue.iter().enumerate().filter(|(_, delivery)| delivery.hook == hook.name);
        let positions: Vec<_> = of_hook.map(|(position, _)| position).skip(usize::from(is_running)).collect();
        let mut displaced = None;
        if hook.needs_only_the_last() {
            for position in positions.into_iter().rev() {
                self.queue.remove(position);
            }
        } else if positions.len() >= MOST_QUEUED {
            displaced = Some(self.queue.remove(positions[0]));
        }
        self.queue.push(HookDelivery { hook: hook.name.clone(), attempts: 0, event });
        displaced
    }

    /// Has the files looked at that are to hold the token: a file in `/run` is gone after a reboot, which is no event.
    fn look_after_files(&mut self, hooks: &[Hook], key: &RunnerKey, sight: &RunnerSight, now: Timestamp) {
        if sight.token.is_none() || !sight.is_own {
            return;
        }
        for hook in hooks.iter().filter(|hook| hook.keeps_file_of(&sight.label)) {
            let is_new = self.looked_at.insert(hook.name.clone());
            if !is_new || self.next_for(&hook.name).is_some() {
                continue;
            }
            let event = HookEvent {
                event_id: event_id(key, 0, HookKind::Rotated, sight.seen.token),
                event: HookKind::Rotated,
                at: now,
                runner: Some(sight.label.clone()),
                runner_id: sight.seen.id,
                url: Some(sight.url.clone()),
                expires_at: sight.expiry.at(),
                text: "the file is looked at, at the start or after a change of the settings".to_owned(),
            };
            self.queue.push(HookDelivery { hook: hook.name.clone(), attempts: 0, event });
        }
    }

    /// Has all files looked at again, and all errors logged again: the settings were changed, or read again.
    pub(super) fn forget_looks(&mut self) {
        self.looked_at.clear();
        self.errors.clear();
    }

    /// The hooks that something is to be delivered to.
    pub(super) fn wanted_hooks(&self) -> BTreeSet<String> {
        self.queue.iter().map(|delivery| delivery.hook.clone()).collect()
    }

    /// What is to be delivered next to a hook.
    pub(super) fn next_for(&self, hook: &str) -> Option<&HookDelivery> {
        self.queue.iter().find(|delivery| delivery.hook == hook)
    }

    /// Drops what no hook wants any more. Returns the numbers of events by hook.
    pub(super) fn drop_unwanted(&mut self, hooks: &[Hook]) -> BTreeMap<String, usize> {
        let mut dropped = BTreeMap::new();
        self.queue.retain(|HookDelivery { hook: name, event, .. }| {
            let is_wanted = hooks.iter().any(|hook| hook.name == *name && hook.still_wants(event));
            if !is_wanted {
                *dropped.entry(name.clone()).or_default() += 1;
            }
            is_wanted
        });
        dropped
    }

    /// Takes a delivery that has ended out of the queue, or notes how often it was tried. Returns whether it was there.
    pub(super) fn conclude(&mut self, delivery: &HookDelivery, tried_in_vain: Option<u32>) -> bool {
        let Some(position) = self.queue.iter().position(|queued| queued == delivery) else { return false };
        match tried_in_vain {
            Some(attempts) => self.queue[position].attempts = attempts,
            None => {
                self.queue.remove(position);
            }
        }
        true
    }

    /// Notes why a hook has failed. Returns whether that is news.
    pub(super) fn note_error(&mut self, hook: &str, error: &str) -> bool {
        self.errors.insert(hook.to_owned(), error.to_owned()).as_deref() != Some(error)
    }

    /// A hook has run, or its event was dropped.
    pub(super) fn forget_error(&mut self, hook: &str) {
        self.errors.remove(hook);
    }

    /// Whether nothing is to be delivered.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a token was announced.
    pub(super) fn has_token(&self) -> bool {
        self.announced.as_ref().is_some_and(|announced| announced.token.is_some())
    }

    /// Whether it is a runner.
    pub(super) fn is_of_runner(&self) -> bool {
        self.announced.as_ref().is_some_and(|announced| announced.label.is_some())
    }

    /// Whether a runner that was seen first under another key is this one.
    pub(super) fn is_same(&self, sight: &RunnerSight) -> bool {
        let Some(announced) = self.announced.as_ref().filter(|announced| announced.token.is_some()) else {
            return false;
        };
        let has_name = announced.label.as_ref() == Some(&sight.label) && announced.url.as_ref() == Some(&sight.url);
        let can_have_id = announced.id.is_none() || sight.seen.id.is_none() || announced.id == sight.seen.id;
        announced.token == sight.seen.token || (has_name && can_have_id)
    }

    /// Whether it is gone and has nothing left to deliver: it may be registered anew.
    pub(super) fn is_done(&self) -> bool {
        self.is_dismissed && self.queue.is_empty() && !self.has_token()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{Action, CommandAction, TokenInput, WriteTokenAction};
    use crate::lifecycle::hooks::SeenRunner;
    use crate::model::{Expiry, RunnerId};

    fn key() -> RunnerKey {
        RunnerKey::enrollment("build-1").unwrap()
    }

    fn sighting(token: Option<&str>) -> Sighting {
        let token = token.map(|token| Token::parse(token).unwrap());
        let seen = SeenRunner {
            token: token.as_ref().map(Token::digest),
            id: RunnerId::try_new(7).ok(),
            ..SeenRunner::default()
        };
        let sight = RunnerSight {
            label: "build-1".to_owned(),
            url: "https://gitlab.example.com".parse().unwrap(),
            expiry: Expiry::default(),
            token,
            is_own: true,
            seen,
        };
        Sighting { key: key(), subject: Subject::Runner(Box::new(sight)), now: Timestamp::from_millis(0) }
    }

    fn hook(action: Action) -> Hook {
        let (name, timeout, retries) = ("a".to_owned(), crate::hooks::TIMEOUT, action.default_retries());
        Hook { name, on: HookKind::ALL.to_vec(), runners: vec!["build-1".to_owned()], action, timeout, retries }
    }

    fn command() -> Hook {
        hook(Action::Command(CommandAction {
            program: "/bin/true".into(),
            arguments: Vec::new(),
            token: TokenInput::None,
        }))
    }

    fn write_token() -> Hook {
        hook(Action::WriteToken(WriteTokenAction { path: "/run/token".into(), mode: 0o600, owner: None }))
    }

    fn kinds(member: &Member) -> Vec<HookKind> {
        member.queue.iter().map(|delivery| delivery.event.event).collect()
    }

    #[test]
    fn a_runner_that_was_there_makes_no_event_and_a_new_one_does() {
        for (former, expected) in [(Former::There, vec![]), (Former::Announced, vec![HookKind::Registered])] {
            let mut member = Member::default();
            let change = member.see(&sighting(Some("glrt-a")), former, &[command()], &Lanes::default());
            assert_eq!((change.is_news, kinds(&member)), (true, expected), "{former:?}");
            let again = member.see(&sighting(Some("glrt-a")), former, &[command()], &Lanes::default());
            assert!(!again.is_news, "{former:?}");
        }
    }

    #[test]
    fn an_error_is_news_until_it_is_repeated() {
        let mut member = Member::default();
        let news = ["a", "a", "b", "b"].map(|error| member.note_error("hook", error));
        assert_eq!(news, [true, false, true, false]);
        member.forget_error("hook");
        assert!(member.note_error("hook", "b"), "after a success");
        member.forget_looks();
        assert!(member.note_error("hook", "b"), "after a reload");
    }

    #[test]
    fn the_oldest_events_make_room_but_for_the_one_under_way() {
        let (mut member, mut lanes, hooks) = (Member::default(), Lanes::default(), [command()]);
        let see = |member: &mut Member, lanes: &Lanes, number: usize| {
            member.see(&sighting(Some(&format!("glrt-{number}"))), Former::Announced, &hooks, lanes).dropped
        };
        for number in 0..MOST_QUEUED {
            assert_eq!(see(&mut member, &lanes, number), [], "{number}");
        }
        let first = member.queue[0].clone();
        assert_eq!(see(&mut member, &lanes, MOST_QUEUED), [first]);
        let (under_way, second) = (member.queue[0].clone(), member.queue[1].clone());
        let now = tokio::time::Instant::now();
        lanes.put("a", &key(), now);
        assert!(lanes.take_due(now).is_some());
        assert_eq!(see(&mut member, &lanes, MOST_QUEUED + 1), [], "there is room for one beside the one under way");
        assert_eq!(see(&mut member, &lanes, MOST_QUEUED + 2), [second]);
        assert!(member.conclude(&under_way, None));
        assert_eq!(member.queue.len(), MOST_QUEUED);
    }

    #[test]
    fn a_file_waits_for_the_last_event_alone() {
        let (mut member, hooks) = (Member::default(), [write_token()]);
        for token in ["glrt-a", "glrt-b", "glrt-c"] {
            let change = member.see(&sighting(Some(token)), Former::Announced, &hooks, &Lanes::default());
            assert_eq!(change.dropped, [], "nothing is lost");
        }
        assert_eq!(kinds(&member), [HookKind::Rotated]);
        let token = Some(Token::parse("glrt-c").unwrap().digest());
        assert_eq!(member.queue[0].event.event_id, event_id(&key(), member.events, HookKind::Rotated, token));
    }
}
