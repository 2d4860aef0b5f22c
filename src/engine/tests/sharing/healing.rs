//! A person heals a shared runner.

use super::*;
use crate::model::{Candidate, CandidateSource, Sender, SharedChange, SharedPending, SharedRunner};

/// Longer than a command waits for a refusal to be confirmed, and for another machine.
const PATIENCE: Duration = Duration::from_secs(300);

impl Fleet {
    /// A command beside the daemon of this machine, with an access token or without one.
    async fn heal(&mut self, number: usize, access_token: Option<&str>) -> (Drive, TestDriver) {
        let access_token = access_token
            .map(|token| crate::ops::AccessToken { token: Token::parse(token).unwrap(), tls: TlsFiles::default() });
        let machine = self.machine(number, self.machines[number].disk.clone()).await;
        let asker = Asker::Command { access_token, entry_fate: EntryFate::Keep };
        let mut driver = machine.driver.asked_by(asker);
        driver.is_healing = true;
        let drive = driver.drive(Goal::Healed, Budget::Within(PATIENCE), &TestCaller::default()).await;
        (drive, driver)
    }

    /// GitLab gives the runner a token that no machine knows.
    pub(super) fn lose_token(&self) {
        let id = self.server.runners().keys().next().copied().unwrap();
        let (other, unknown) = self.server.add_runner();
        self.server.remove_runner(other);
        self.server.restore(RunnerId::try_new(id).unwrap(), &unknown);
    }

    async fn change(&self, change: impl FnOnce(&mut SharedRunner)) {
        let shares = self.shares();
        let stored = shares.read(&name()).await.unwrap().unwrap();
        let mut next = stored.runner.clone();
        change(&mut next);
        shares.swap(&name(), Some(&stored), next).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn dead_shared_runner_gets_a_new_token_without_a_reason_in_the_store() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    fleet.lose_token();
    let (drive, _) = fleet.heal(0, Some("glpat-access")).await;
    assert!(matches!(drive.outcome(), Some(Outcome::Rotated(_))), "{drive:?}");
    let stored = fleet.stored().await;
    assert_eq!(stored.token.unwrap().credential.token, fleet.current());
    assert_eq!((stored.pending, stored.recoveries.len()), (None, 1));
    fleet.restart(0).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    fleet.assert_all_hold_the_servers_token();
    assert_eq!(fleet.count("reset_by_id"), 1);
}

#[tokio::test(start_paused = true)]
async fn token_of_another_runner_that_the_machine_keeps_does_not_stop_the_healing() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let (other, credential) = fleet.server.add_runner();
    let key = fleet.machines[0].driver.runner.record.key.clone();
    let kept = Candidate {
        token: credential.token,
        source: CandidateSource::Found,
        noted_at: fleet.machines[0].driver.now(),
        obtained_at: None,
        expiry: credential.expiry,
        id: Some(other),
        origin: None,
        refused: None,
    };
    fleet.machines[0].disk.state().held.entry(key).or_default().candidates.push(kept);
    fleet.lose_token();
    let (drive, _) = fleet.heal(0, Some("glpat-access")).await;
    assert!(matches!(drive.outcome(), Some(Outcome::Rotated(_))), "{drive:?}");
    fleet.server.remove_runner(other);
    assert_eq!(fleet.stored().await.token.unwrap().credential.token, fleet.current());
}

#[tokio::test(start_paused = true)]
async fn accepted_token_is_not_replaced_but_written_back_into_the_store() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    fleet.store.restore(&name(), None);
    let (drive, driver) = fleet.heal(1, Some("glpat-access")).await;
    assert!(matches!(drive.outcome(), Some(Outcome::Accepted(_))), "{drive:?}");
    assert_eq!(fleet.stored().await.token.unwrap().credential.token, fleet.current());
    let sharing = driver.report().sharing.unwrap();
    assert_eq!((sharing.generation, sharing.problem, sharing.untold), (Some(1), None, false));
    assert_eq!(fleet.count("reset_by_id") + fleet.count("reset"), 0);
}

#[tokio::test(start_paused = true)]
async fn older_token_that_the_server_accepts_again_is_not_replaced() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let (id, former) = (fleet.server.runners().keys().next().copied().unwrap(), fleet.current());
    fleet.pass(LIFE, &[]).await;
    let expiry = crate::model::Expiry::At(fleet.server.runners()[&id].expiry.at().unwrap());
    let restored = crate::model::Credential { token: former.clone(), obtained_at: None, expiry };
    fleet.server.restore(RunnerId::try_new(id).unwrap(), &restored);
    let (drive, _) = fleet.heal(0, Some("glpat-access")).await;
    assert_eq!(fleet.count("reset_by_id"), 0, "{drive:?}");
    assert_eq!((fleet.current(), fleet.stored().await.token.unwrap().credential.token), (former.clone(), former));
}

#[tokio::test(start_paused = true)]
async fn without_an_access_token_a_dead_runner_stays_as_it_is() {
    let mut fleet = Fleet::with(1).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    fleet.lose_token();
    let before = fleet.stored().await;
    let (drive, _) = fleet.heal(0, None).await;
    assert!(matches!(drive.outcome(), Some(Outcome::MustAct(_))), "{drive:?}");
    assert_eq!(fleet.stored().await, before);
}

#[tokio::test(start_paused = true)]
async fn healing_waits_for_a_machine_that_may_still_bring_a_token() {
    let mut fleet = Fleet::with(1).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let other = Sender { machine: "s_999999999999".parse().unwrap(), boot: 7 };
    let token = fleet.current().digest();
    fleet
        .change(|next| {
            next.pending =
                Some(SharedPending { change: SharedChange::Reset, sender: other, token: Some(token), number: 1 })
        })
        .await;
    fleet.lose_token();
    let began = tokio::time::Instant::now();
    let (drive, _) = fleet.heal(0, Some("glpat-access")).await;
    assert!(matches!(drive.outcome(), Some(Outcome::Rotated(_))), "{drive:?}");
    assert!(began.elapsed() >= Duration::from_secs(90), "{:?}", began.elapsed());
    assert_eq!(fleet.stored().await.pending, None);
}

#[tokio::test(start_paused = true)]
async fn rotation_by_a_command_is_announced_in_the_store_and_told_to_it() {
    let mut fleet = Fleet::with(2).await;
    fleet.pass(Duration::from_secs(60), &[]).await;
    let machine = fleet.machine(0, fleet.machines[0].disk.clone()).await;
    let asker = Asker::Command { access_token: None, entry_fate: EntryFate::Keep };
    let mut driver = machine.driver.asked_by(asker);
    // A command drives a runner as it is.
    driver.enrollment = None;
    let drive = driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(matches!(drive.outcome(), Some(Outcome::Rotated(_))), "{drive:?}");
    let stored = fleet.stored().await;
    assert_eq!(stored.token.unwrap().credential.token, fleet.current());
    // While another machine changes the runner, nothing is sent.
    let other = Sender { machine: "s_999999999999".parse().unwrap(), boot: 7 };
    fleet
        .change(|next| {
            next.pending = Some(SharedPending { change: SharedChange::Reset, sender: other, token: None, number: 1 })
        })
        .await;
    let drive = driver.drive(Goal::Rotated, Budget::BY_RULES, &TestCaller::default()).await;
    assert!(!matches!(drive.outcome(), Some(Outcome::Rotated(_))), "{drive:?}");
    assert_eq!(fleet.count("reset"), 1);
}
