//! What the log says about a shared runner.

use super::*;
use crate::model::{Member, SystemId};
use crate::ops::{Identity, memory};
use crate::secret::Token;

/// The lines of the log about a shared runner's token, without their times.
fn sharing_lines(log: &str) -> Vec<String> {
    let is_told = |line: &&str| line.contains("share=");
    let lines = log.lines().filter(is_told).filter_map(|line| line.split_once(" INFO "));
    lines.map(|(_, line)| line.trim().to_owned()).collect()
}

fn shared_config() -> Config {
    let share_as = Some("docker-fleet".parse().unwrap());
    let enrollment = Enrollment { share_as, ..memory::enrollment(registration_token()) };
    Config { enrollments: vec![enrollment], ..Config::default() }
}

#[tokio::test(start_paused = true)]
async fn log_names_generation_machine_and_members_once_for_each_token_of_a_shared_runner() {
    let fixture = DaemonFixture::new(Some(secs(3600)));
    let store = MemoryEngine::default();
    let name: crate::model::ShareName = "docker-fleet".parse().unwrap();
    let parts = fixture.parts();
    let shares = || Shares::new(AnyEngine::Memory(store.clone()), None);
    parts.engine.ops.share_in(Some(shares()));
    let own = parts.engine.ops.system_id().to_string();
    let log = Captured::start();
    let (notices, inbox) = mpsc::unbounded_channel();
    let play = async {
        // Registered, and rotated after three quarters of an hour; in between it is verified.
        sleep(secs(4000)).await;
        let lines = sharing_lines(&log.text());
        assert_eq!(lines.len(), 2, "{lines:#?}\n{}", log.text());
        for (line, text, generation) in
            [(&lines[0], "registered the shared runner", 1), (&lines[1], "rotated the token of the shared runner", 2)]
        {
            let fields = format!("share=\"docker-fleet\" generation={generation} machine=\"{own}\" host=");
            assert!(line.contains(text) && line.contains(&fields) && line.contains(" members=1"), "{line}");
        }
        assert!(!log.text().contains(" registered runner="), "one line alone: {}", log.text());
        // Another machine rotates it.
        let stored = shares().read(&name).await.unwrap().unwrap();
        let mut runner = stored.runner.clone();
        let token = Token::parse("glrt-rotated-by-another").unwrap();
        let former = runner.token.as_mut().unwrap();
        (former.lineage, former.credential.token) = (former.lineage.with_next(token.digest()), token);
        fixture.server.restore(runner.id.unwrap(), &former.credential);
        let machine: SystemId = "s_other0000000".parse().unwrap();
        runner.changed_by = Some(machine.clone());
        let joined_at = runner.members[0].joined_at;
        runner.members.push(Member { machine, host: "other".to_owned(), joined_at });
        shares().swap(&name, Some(&stored), runner).await.unwrap();
        sleep(secs(300)).await;
        let lines = sharing_lines(&log.text());
        let fields = "generation=3 machine=\"s_other0000000\" host=\"other\" members=2";
        assert!(lines.len() == 3 && lines[2].contains(fields), "{lines:#?}\n{}", log.text());
        assert!(lines[2].contains("following the store's token of the shared runner"), "{lines:#?}");
        assert!(!log.text().contains("following a token that the server accepts"), "{}", log.text());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(shared_config(), parts, inbox), play);
    result.unwrap();

    // A start says nothing anew. Then the store has a token that no server accepts.
    let parts = fixture.parts();
    parts.engine.ops.share_in(Some(shares()));
    let log = Captured::start();
    let (notices, inbox) = mpsc::unbounded_channel();
    let play = async {
        sleep(secs(60)).await;
        assert_eq!(sharing_lines(&log.text()), [""; 0]);
        let stored = shares().read(&name).await.unwrap().unwrap();
        let mut runner = stored.runner.clone();
        let token = Token::parse("glrt-that-is-dead").unwrap();
        let former = runner.token.as_mut().unwrap();
        (former.lineage, former.credential.token) = (former.lineage.with_next(token.digest()), token);
        shares().swap(&name, Some(&stored), runner).await.unwrap();
        sleep(secs(600)).await;
        let lines = sharing_lines(&log.text());
        let written: Vec<_> = lines.iter().filter(|line| line.starts_with("wrote this machine's token over")).collect();
        assert!(written.len() == 1 && written[0].contains("generation=5 former=4"), "{lines:#?}\n{}", log.text());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(shared_config(), parts, inbox), play);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn machine_that_finds_the_runner_in_the_store_says_that_it_took_it_and_from_whom() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let store = MemoryEngine::default();
    let own = memory::identity().system_id;
    let other: SystemId = "s_other0000000".parse().unwrap();
    for (machine, disk, text) in [
        (&own, fixture.disk.clone(), "registered the shared runner"),
        (&other, MemoryDisk::default(), "took the shared runner from the store"),
    ] {
        let mut parts = fixture.parts();
        let identity = Identity { system_id: machine.clone(), ..memory::identity() };
        parts.engine.ops = Ops::new(fixture.server.clone(), disk, identity);
        parts.engine.ops.share_in(Some(Shares::new(AnyEngine::Memory(store.clone()), None)));
        let log = Captured::start();
        let (notices, inbox) = mpsc::unbounded_channel();
        let stop = async {
            sleep(secs(60)).await;
            notices.send(Notice::StopAndKeep).unwrap();
        };
        let (result, ()) = tokio::join!(run(shared_config(), parts, inbox), stop);
        result.unwrap();
        let lines = sharing_lines(&log.text());
        let fields = format!("generation=1 machine=\"{own}\" host=");
        assert!(
            lines.len() == 1 && lines[0].contains(text) && lines[0].contains(&fields),
            "{lines:#?}\n{}",
            log.text()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn machine_without_a_token_says_once_that_it_waits_for_the_store() {
    let fixture = DaemonFixture::new(Some(secs(86_400)));
    let store = MemoryEngine::default();
    store.stop(true);
    let parts = fixture.parts();
    parts.engine.ops.share_in(Some(Shares::new(AnyEngine::Memory(store.clone()), None)));
    let registry = parts.registry.clone();
    let log = Captured::start();
    let (notices, inbox) = mpsc::unbounded_channel();
    let look = async {
        sleep(secs(600)).await;
        let warnings: Vec<_> = log.text().lines().filter(|line| line.contains(" WARN ")).map(str::to_owned).collect();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert!(warnings[0].contains("this machine has no token yet, and waits for the store"), "{warnings:#?}");
        let why = registry.readiness().waiting_for.remove(0).why;
        assert!(why.contains("memory cannot be reached"), "{why}");
        store.stop(false);
        sleep(secs(600)).await;
        assert!(registry.readiness().waiting_for.is_empty());
        assert!(log.text().contains("the store of the shared runner can be used again"), "{}", log.text());
        assert!(!log.text().contains("works again"), "{}", log.text());
        notices.send(Notice::StopAndKeep).unwrap();
    };
    let (result, ()) = tokio::join!(run(shared_config(), parts, inbox), look);
    result.unwrap();
}
