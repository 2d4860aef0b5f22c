use super::*;
use crate::model::{
    Boot, Candidate, CandidateSource, Claim, Conclusion, Evidence, Finding, Held, Origin, Rejection, Rungs, Stamp,
    Trouble,
};

pub(super) fn key() -> RunnerKey {
    RunnerKey::enrollment("build-1").unwrap()
}

pub(super) fn held() -> Held {
    let stamp = Stamp { at: time("2026-01-05T00:00:00Z"), boot: Boot(u64::MAX), since_boot_ms: 77 };
    let finding = |claim| Some(Finding { claim, count: 2, first: stamp, last: None });
    let candidate = |text, source, refused| Candidate {
        token: token(text),
        source,
        noted_at: stamp.at,
        obtained_at: Some(stamp.at),
        expiry: Expiry::At(time("2026-03-01T00:00:00Z")),
        id: Some(id(42)),
        origin: (source == CandidateSource::Former).then_some(Origin::Registered),
        refused,
    };
    let former = candidate("glrt-secret-a", CandidateSource::Former, finding(Claim::Refused));
    let received = candidate("glrt-secret-b", CandidateSource::Received, None);
    let found = candidate("glrt-secret-c", CandidateSource::Found, finding(Claim::NotUnderstood));
    let bare = Candidate { obtained_at: None, expiry: Expiry::Unknown, id: None, ..received.clone() };
    let evidence = Evidence {
        token: Some(token("glrt-secret").digest()),
        asked: finding(Claim::MustAct(Trouble::Orphaned)),
        changed: finding(Claim::Removed),
        conclusion: Some(Conclusion::Rejected {
            rejection: Rejection::Lost,
            rungs: Rungs { reset_failed: true, ..Rungs::default() },
            since: stamp.at,
        }),
        asks_first: true,
    };
    Held { candidates: vec![former, received, found, bare], evidence: Some(Box::new(evidence)) }
}

fn file(home: &Home) -> PathBuf {
    home.state().join("runners/build-1.held")
}

fn read(home: &Home) -> Result<Held, Error> {
    block_on(home.open().held(&key()))
}

#[test]
fn held_tokens_and_evidence_read_back_whole() {
    let home = Home::new();
    let store = home.open();
    assert_eq!(read(&home).unwrap(), Held::default());
    let only_candidates = Held { evidence: None, ..held() };
    let only_evidence = Held { candidates: Vec::new(), ..held() };
    for expected in [held(), only_candidates, only_evidence] {
        block_on(store.save_held(&key(), expected.clone())).unwrap();
        assert_eq!(read(&home).unwrap(), expected);
    }
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(file(&home).metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn every_conclusion_and_claim_reads_back() {
    let home = Home::new();
    let store = home.open();
    let since = time("2026-01-05T00:00:00Z");
    let conclusions = [
        Conclusion::NotRenewable { since },
        Conclusion::Failed { trouble: Trouble::RegistrationLost, since },
        Conclusion::Rejected { rejection: Rejection::Expired, rungs: Rungs::default(), since },
    ];
    for conclusion in conclusions {
        let evidence = Evidence { conclusion: Some(conclusion), ..*held().evidence.unwrap() };
        let expected = Held { evidence: Some(Box::new(evidence)), ..held() };
        block_on(store.save_held(&key(), expected.clone())).unwrap();
        assert_eq!(read(&home).unwrap(), expected);
    }
}

#[test]
fn nothing_to_hold_leaves_no_file() {
    let home = Home::new();
    let store = home.open();
    block_on(store.save_held(&key(), held())).unwrap();
    for _ in 0..2 {
        block_on(store.save_held(&key(), Held::default())).unwrap();
        assert!(!file(&home).exists());
    }
}

#[test]
fn without_a_state_directory_nothing_is_held() {
    let home = Home::new();
    let store = Store::open(Config { state_root: None, ..home.config() }).unwrap();
    block_on(store.save_held(&key(), held())).unwrap();
    assert_eq!(block_on(store.held(&key())).unwrap(), Held::default());
}

#[test]
fn damaged_held_file_is_named_without_its_content_and_kept() {
    let home = Home::new();
    let store = home.open();
    block_on(store.save_held(&key(), held())).unwrap();
    let whole = std::fs::read_to_string(file(&home)).unwrap();
    let damages = [
        String::new(),
        whole[..whole.len() / 2].to_owned(),
        whole.replace("\"schema\": 1", "\"schema\": 2"),
        whole.replace("build-1", "build-2"),
        whole.replace("glrt-secret-a", "glrt secret-a"),
        whole.replace("\"received\"", "\"glrt-secret\""),
    ];
    for damage in damages {
        std::fs::write(file(&home), &damage).unwrap();
        let error = block_on(store.held(&key())).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(matches!(error, Error::Held { .. }) && shown.contains("build-1.held"), "{shown}");
        assert!(!shown.contains("glrt-secret") && !shown.contains("secret-a"), "{shown}");
        assert_eq!(std::fs::read_to_string(file(&home)).unwrap(), damage);
    }
}

#[test]
fn damaged_held_file_is_set_aside_before_it_is_replaced() {
    let home = Home::new();
    let store = home.open();
    for content in [held(), Held::default(), held()] {
        std::fs::write(file(&home), "torn").unwrap();
        block_on(store.save_held(&key(), content.clone())).unwrap();
        assert_eq!(read(&home).unwrap(), content);
    }
    let kept = |number| std::fs::read_to_string(home.state().join(format!("runners/build-1.held.damaged-{number}")));
    assert!((1..=3).all(|number| kept(number).unwrap() == "torn"));
}

#[test]
fn held_file_is_replaced_or_kept_whole_when_its_write_fails() {
    let home = Home::new();
    let store = home.open();
    block_on(store.save_held(&key(), held())).unwrap();
    // The temporary file cannot be made.
    std::fs::create_dir_all(home.state().join("runners/.build-1.held.runner-agent.tmp/in-the-way")).unwrap();
    assert!(matches!(block_on(store.save_held(&key(), Held { evidence: None, ..held() })), Err(Error::Io { .. })));
    assert_eq!(read(&home).unwrap(), held());
}

#[test]
fn held_tokens_are_not_shown() {
    assert!(!format!("{:?}", held()).contains("glrt-secret"));
}
