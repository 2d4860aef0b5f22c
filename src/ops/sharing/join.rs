//! How a machine comes to a shared runner, and leaves it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{CONTESTED_WRITES, SharedStart};
use crate::error_chain::chain;
use crate::lifecycle::Fraction;
use crate::lifecycle::sharing as rules;
use crate::model::{
    Claim, Finding, Member, Origin, RunnerId, ShareName, SharedChange, SharedPending, SharedRunner, SharedToken,
    SystemId, Timestamp,
};
use crate::ops::{Disk, Enrollment, Error, Identity, Inquiry, Ops, RegistrationSource, Runner, Server, random_bits};
use crate::secret::Source;

fn pause(attempt: u32) -> Duration {
    let bits = random_bits() & u64::from(u32::MAX);
    rules::contested_pause(attempt, Fraction::from_bits(u32::try_from(bits).unwrap_or(0)))
}

impl Runner {
    /// Whether another machine that was the last one may be deleting the runner with its present token.
    #[must_use]
    pub fn must_rotate(&self, own: &SystemId) -> bool {
        let leaving = self.store.as_ref().and_then(|memory| memory.leaving.as_ref());
        leaving.is_some_and(|(sender, _)| sender.machine != *own)
    }

    fn is_member(&self, machine: &SystemId) -> bool {
        let shared = self.stored_runner();
        shared.is_some_and(|shared| shared.members.iter().any(|member| member.machine == *machine))
    }

    /// Whether nothing is to be written for this machine to be a member.
    pub(super) fn has_joined(&self, machine: &SystemId, now: Timestamp) -> bool {
        self.is_member(machine) || self.stored_runner().is_some_and(|shared| is_full(shared, now))
    }

    /// Whether this machine has made the runner for all, and the store has another machine's one: it was never told of ours.
    #[must_use]
    pub fn gives_way(&self) -> bool {
        let shared = self.record.shared.as_ref();
        let lineage = shared.filter(|shared| shared.is_untold).and_then(|shared| shared.lineage.as_ref());
        let stored = self.stored_runner();
        let ids =
            stored.filter(|stored| stored.token.is_some()).and_then(|stored| stored.id).zip(self.record.named_id());
        lineage.is_some_and(|lineage| lineage.generation() == 1)
            && self.record.origin == Origin::Registered
            && ids.is_some_and(|(theirs, ours)| theirs != ours)
    }
}

/// The most members that are kept.
const MAX_MEMBERS: usize = 2000;

/// After this time a member gives its place to another machine if there are too many: it may have been replaced, and could
/// not say so. One that lives enters itself again once there is a place.
const MEMBER_LIFE: Duration = Duration::from_secs(30 * 86_400);

fn oldest_member(shared: &SharedRunner) -> Option<(usize, &Member)> {
    shared.members.iter().enumerate().min_by_key(|(_, member)| member.joined_at)
}

/// Whether there is no place for another member. The machines that have none use the runner all the same.
fn is_full(shared: &SharedRunner, now: Timestamp) -> bool {
    shared.members.len() >= MAX_MEMBERS
        && oldest_member(shared).is_none_or(|(_, member)| now.since(member.joined_at) < MEMBER_LIFE)
}

/// Enters a machine among the members, which are in order, if there is a place.
pub(super) fn enter_member(shared: &mut SharedRunner, member: Member) {
    // It has not stopped after all, or has started again.
    shared.leaving = shared.leaving.take().filter(|leaving| leaving.machine != member.machine);
    let position = |shared: &SharedRunner| {
        shared.members.binary_search_by(|known| known.machine.as_str().cmp(member.machine.as_str()))
    };
    if position(shared).is_ok() || is_full(shared, member.joined_at) {
        return;
    }
    if shared.members.len() >= MAX_MEMBERS {
        let oldest = oldest_member(shared).map(|(at, _)| at);
        oldest.map(|at| shared.members.remove(at));
    }
    if let Err(at) = position(shared) {
        shared.members.insert(at, member);
    }
}

impl<S: Server, D: Disk> Ops<S, D> {
    pub(super) fn member(&self, inquiry: &Inquiry<'_>) -> Member {
        let Identity { system_id, host, .. } = &self.identity;
        Member { machine: system_id.clone(), host: host.clone(), joined_at: inquiry.now.at }
    }

    /// Enters this machine among the members, with the id that the server has named.
    pub(super) async fn join(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<bool, Error> {
        let machine = self.system_id().clone();
        for attempt in 0..CONTESTED_WRITES {
            let id = runner.record.named_id();
            let is_named = runner.stored_runner().is_some_and(|it| it.id.is_some() || id.is_none());
            if runner.has_joined(&machine, inquiry.now.at) && is_named {
                return Ok(true);
            }
            let member = self.member(inquiry);
            let joined = self.swap_shared(name, runner, |next| {
                next.id = next.id.or(id);
                enter_member(next, member);
            });
            if joined.await? {
                return Ok(true);
            }
            self.take_turns(name, runner, attempt).await?;
        }
        Ok(false)
    }

    /// Lets other machines write, and reads what they have written: a swap of what was read before the pause would fail.
    async fn take_turns(&self, name: &ShareName, runner: &mut Runner, attempt: u32) -> Result<(), Error> {
        sleep(pause(attempt)).await;
        self.look(name, runner).await
    }

    /// Takes this machine out of the members, once its manager is deleted. A failure is only logged: people can do it with
    /// `shared forget`.
    pub async fn leave(&self, name: &ShareName, runner: &mut Runner) {
        if runner.is_recorded && runner.record.credential.is_some() {
            runner.share(name).has_left = true;
            if let Err(error) = self.save_record(runner).await {
                tracing::warn!(runner = runner.label(), error = chain(&error), "cannot note that it was left");
            }
        }
        self.leave_members(name, runner).await;
    }

    async fn leave_members(&self, name: &ShareName, runner: &mut Runner) {
        if runner.store.is_none() && self.look(name, runner).await.is_err() {
            return;
        }
        let machine = self.system_id().clone();
        for attempt in 0..CONTESTED_WRITES {
            if !runner.is_member(&machine) {
                return;
            }
            match self.swap_shared(name, runner, |next| next.members.retain(|member| member.machine != machine)).await {
                Ok(true) => return,
                Ok(false) => {
                    if self.take_turns(name, runner, attempt).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        runner = runner.label(),
                        error = chain(&error),
                        "this machine stays among the members of the shared runner"
                    );
                    return;
                }
            }
        }
    }

    /// Whether this machine comes to the runner like a new one after a verification that GitLab has refused.
    #[must_use]
    pub fn joins_anew(&self, runner: &Runner, inquiry: &Inquiry<'_>) -> bool {
        let is_other_runner = runner
            .stored_runner()
            .is_some_and(|stored| stored.url == runner.record.url && runner.is_of_another_share(stored));
        let is_read = runner.store.as_ref().is_some_and(|memory| memory.seen.is_some());
        is_read && self.viewed(runner, false, inquiry, |view| view.joins_anew(is_other_runner)).unwrap_or(false)
    }

    /// The server has named a runner for the store's token.
    pub(in crate::ops) fn check_stored_id(&self, runner: &Runner, named: Option<RunnerId>) -> Result<(), Error> {
        let memory = runner.store.as_deref();
        let Some((name, stored)) = memory.and_then(|memory| memory.name.as_ref().zip(memory.runner())) else {
            return Ok(());
        };
        match named.zip(stored.id) {
            Some((named, stored_id)) if named != stored_id && stored.token.is_some() => Err(Error::OtherShare {
                runner: runner.label().to_owned(),
                name: name.clone(),
                url: stored.url.clone(),
                id: stored.id,
            }),
            _ => Ok(()),
        }
    }

    /// A machine that joins has found a token in the store that GitLab refuses. It takes the token over, as one that it had:
    /// it is asked about again, and may be recovered. All other machines may be gone.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn take_over_dead(&self, name: &ShareName, runner: &mut Runner, now: Timestamp) -> Result<(), Error> {
        let memory = runner.store.as_deref();
        let Some(stored) = memory.and_then(|memory| memory.runner()) else { return Ok(()) };
        let Some(SharedToken { credential, lineage }) = stored.token.clone() else { return Ok(()) };
        let id = stored.id;
        runner.take(credential, now);
        // A writer of the store without the key could name any runner, unless the value is sealed.
        let confirmed_id = id.filter(|_| self.shares().is_some_and(|shares| shares.is_sealed()));
        (runner.record.id, runner.record.confirmed_id, runner.record.origin) = (id, confirmed_id, Origin::Given);
        let shared = runner.share(name);
        (shared.lineage, shared.is_untold) = (Some(lineage), false);
        Ok(self.save_record(runner).await?)
    }

    /// The runner was taken from the store: the token that the enrollment is given stays the one that it was made of.
    ///
    /// # Errors
    /// [`Error::Secret`], [`Error::Disk`].
    pub async fn note_given(&self, enrollment: &Enrollment, runner: &mut Runner) -> Result<(), Error> {
        let RegistrationSource::Given(_) = &enrollment.source else { return Ok(()) };
        runner.record.set_seed(&enrollment.source.read()?);
        Ok(self.save_record(runner).await?)
    }

    /// How this machine comes to the runner. If it is to register it, the store says so afterwards.
    ///
    /// # Errors
    /// As [`Ops::announce`].
    pub async fn start_shared(
        &self,
        name: &ShareName,
        enrollment: &Enrollment,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<SharedStart, Error> {
        self.look(name, runner).await?;
        let own = self.sender();
        let mut is_settled = false;
        for attempt in 0..2 * CONTESTED_WRITES {
            let Some(memory) = runner.store.as_deref() else { break };
            if let Some(token) = memory.token().map(|token| token.credential.token.clone()) {
                let leaving = memory.leaving.as_ref().filter(|(sender, _)| sender.machine != own.machine);
                if leaving.is_some_and(|(_, since)| since.elapsed() < self.pending_wait(None)) {
                    return Ok(SharedStart::Wait);
                }
                let must_rotate = leaving.is_some();
                // The last machine could delete the runner otherwise, before this one is a member.
                if !runner.has_joined(&own.machine, inquiry.now.at) {
                    let member = self.member(inquiry);
                    if !self.swap_shared(name, runner, |next| enter_member(next, member)).await? {
                        self.take_turns(name, runner, attempt).await?;
                    }
                    continue;
                }
                let source =
                    RegistrationSource::Given(Source::Value { token, origin: format!("the store's `{name}`") });
                let enrollment = Box::new(Enrollment { source, ..enrollment.clone() });
                return Ok(SharedStart::Take { enrollment, must_rotate });
            }
            match &memory.pending {
                Some((pending, _)) if pending.sender == own => {
                    // Machines that have the runner, and whose store was emptied, write it when they hear of this.
                    if !is_settled {
                        is_settled = true;
                        sleep(rules::look_interval(None)).await;
                        self.look(name, runner).await?;
                        continue;
                    }
                    return Ok(SharedStart::Register);
                }
                Some((_, since)) if since.elapsed() < self.pending_wait(None) => return Ok(SharedStart::Wait),
                Some((pending, _)) => {
                    tracing::warn!(
                        runner = runner.label(),
                        share = %name,
                        machine = pending.sender.machine.as_str(),
                        "another machine has begun to register the shared runner and has not come back: registering it here; if GitLab lists a runner of that description that was never contacted, delete it"
                    );
                }
                None => {}
            }
            let pending = SharedPending {
                change: SharedChange::Register,
                sender: own.clone(),
                token: None,
                number: random_bits(),
            };
            let member = self.member(inquiry);
            let begun = self.swap_shared(name, runner, |next| {
                next.pending = Some(pending);
                next.origin = enrollment.source.origin();
                enter_member(next, member);
            });
            if begun.await? {
                runner.share(name);
            } else {
                self.take_turns(name, runner, attempt).await?;
            }
        }
        Ok(SharedStart::Wait)
    }

    /// Says in the store that the last machine is about to delete the runner, and waits for machines that are not among its
    /// members: a copy of this one, or one that found no place. Returns whether this machine is the last one.
    pub async fn begin_leaving(&self, name: &ShareName, runner: &mut Runner) -> bool {
        if self.look(name, runner).await.is_err() {
            return false;
        }
        let own = self.sender();
        let Some(shared) = runner.stored_runner() else { return false };
        let is_alone = shared.members.iter().all(|member| member.machine == own.machine);
        let is_current = shared.token.as_ref().is_some_and(|token| Some(token.lineage.token()) == runner.digest());
        let is_idle = shared.pending.is_none() && shared.leaving.as_ref().is_none_or(|it| it.machine == own.machine);
        // One that was given cannot be made again.
        let is_made = shared.origin == Origin::Registered;
        if !(is_alone && is_current && is_idle && is_made) {
            return false;
        }
        let leaving = Some(own);
        let left = self.swap_shared(name, runner, |next| {
            next.members.clear();
            next.leaving.clone_from(&leaving);
        });
        if !left.await.unwrap_or(false) {
            return false;
        }
        sleep(rules::OBJECTION_WAIT).await;
        if self.look(name, runner).await.is_err() {
            return false;
        }
        let Some(shared) = runner.stored_runner() else { return false };
        if shared.members.is_empty() && shared.leaving == leaving && runner.is_current_in_store() {
            return true;
        }
        if shared.leaving == leaving {
            // A failure is reported. A machine that joins while this stands there rotates the token first.
            let _withdrawn = self.swap_shared(name, runner, |next| next.leaving = None).await;
        }
        false
    }

    /// GitLab refuses the token of a runner that the last machine was about to delete. Once that is proven, its value goes.
    ///
    /// # Errors
    /// As [`Ops::announce`].
    pub async fn clear_deleted(
        &self,
        name: &ShareName,
        runner: &mut Runner,
        inquiry: &Inquiry<'_>,
    ) -> Result<(), Error> {
        let Some(token) = runner.stored_digest() else { return Ok(()) };
        let known = runner.memory().deleted.filter(|(deleted, _)| *deleted == token).map(|(_, finding)| finding);
        let refused = Finding::added(known, Claim::Refused, inquiry.answered());
        runner.memory().deleted = Some((token, refused));
        if !refused.proves(2, rules::confirm_after(inquiry.timing, None), &inquiry.answered()) {
            return Ok(());
        }
        let own = self.system_id().clone();
        self.swap_shared(name, runner, |next| {
            (next.token, next.id, next.pending, next.leaving) = (None, None, None, None);
            next.members.retain(|member| member.machine == own);
        })
        .await
        .map(drop)
    }

    /// Removes the value of a runner that this machine has deleted as the last one.
    pub async fn remove_shared(&self, name: &ShareName, runner: &mut Runner) {
        let Ok(shares) = self.store_of(runner) else { return };
        let Some(stored) = runner.stored().cloned() else { return };
        let asked = Instant::now();
        match shares.remove(name, &stored).await {
            Ok(true) => {
                runner.see(None, asked);
            }
            // Another machine goes on with it, and registers the runner anew.
            Ok(false) => {}
            Err(error) => tracing::warn!(
                runner = runner.label(),
                share = %name,
                error = chain(&error),
                "the store still has the runner that is deleted: `runner-agent shared forget` removes it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: usize, joined_at: Timestamp) -> Member {
        Member { machine: format!("s_{number:012}").parse().unwrap(), host: String::new(), joined_at }
    }

    #[test]
    fn more_machines_than_there_are_places_take_turns_once_a_month() {
        let mut shared = SharedRunner::new("https://gitlab.example.com".parse().unwrap(), Origin::Given);
        let began = Timestamp::from_millis(0);
        for number in 0..MAX_MEMBERS {
            enter_member(&mut shared, member(number, began));
        }
        let day = Duration::from_secs(86_400);
        enter_member(&mut shared, member(MAX_MEMBERS, began.plus(day)));
        assert!(is_full(&shared, began.plus(day)));
        assert_eq!(shared.members.len(), MAX_MEMBERS);
        assert!(shared.members.iter().all(|member| member.joined_at == began), "each member keeps its place");
        let later = began.plus(31 * day);
        assert!(!is_full(&shared, later));
        enter_member(&mut shared, member(MAX_MEMBERS, later));
        assert_eq!(shared.members.len(), MAX_MEMBERS);
        assert!(shared.members.is_sorted_by_key(|member| member.machine.as_str().to_owned()));
        assert_eq!(shared.members.iter().filter(|member| member.joined_at == later).count(), 1);
    }
}
