use super::*;
use crate::model::{Belief, LastVerify, Origin, RegisteredWith, StateName, VerifyOutcome, Witness};

pub(super) fn record(key: &str) -> Record {
    Record {
        confirmed_id: None,
        given_to: None,
        key: RunnerKey::enrollment(key).unwrap(),
        origin: Origin::Registered,
        enrollment: Some(key.to_owned()),
        seed: Some(fingerprint("seed")),
        seed_digest: Some(token("seed").digest()),
        url: url(),
        id: Some(id(42)),
        name: Some("build".to_owned()),
        credential: Some(credential("glrt-secret")),
        former_tokens: vec![fingerprint("old")],
        former_digests: vec![token("old").digest()],
        machine: Some(fingerprint("machine")),
        entry_text: Some(EntryText::parse("# mine\n[[runners]]\n  name = \"build\"\n").unwrap()),
        first_seen_at: Some(time("2026-01-01T00:00:00Z")),
        last_verify: Some(LastVerify { at: time("2026-01-02T00:00:00Z"), outcome: VerifyOutcome::Accepted }),
        last_reset_at: Some(time("2026-01-03T00:00:00Z")),
        token_life_secs: Some(86_400),
        belief: Some(Belief { witness: Witness::Local, ahead_millis: -4_000_000 }),
        recovered: None,
        is_copy: false,
        state: Some(StateName::Active),
        since: Some(time("2026-01-04T00:00:00Z")),
        moved_from: None,
        registered_with: Some(Box::new(RegisteredWith { tag_list: vec!["a".to_owned()], ..RegisteredWith::default() })),
        shared: None,
    }
}

#[test]
fn a_record_reads_back_whole() {
    let home = Home::new();
    let store = home.open();
    let bare =
        Record { credential: None, entry_text: None, last_verify: None, former_tokens: Vec::new(), ..record("b") };
    let expiries = [Expiry::Unknown, Expiry::Never]
        .map(|expiry| Record { credential: Some(Credential { expiry, ..credential("t") }), ..record("c") });
    for expected in [record("a"), bare].into_iter().chain(expiries) {
        block_on(store.save_record(expected.clone())).unwrap();
        let found = block_on(home.open().records()).unwrap();
        assert!(found.records.contains(&expected) && found.damaged.is_empty());
    }
    let path = home.state().join("runners/a.json");
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_removed_record_is_gone_and_removing_it_again_is_fine() {
    let home = Home::new();
    let store = home.open();
    block_on(store.save_record(record("a"))).unwrap();
    for _ in 0..2 {
        block_on(store.remove_record(&record("a").key)).unwrap();
    }
    assert!(block_on(store.records()).unwrap().records.is_empty());
}

#[test]
fn a_damaged_record_is_named_without_its_content_and_hides_no_other() {
    let home = Home::new();
    let store = home.open();
    block_on(store.save_record(record("good"))).unwrap();
    let stored = std::fs::read_to_string(home.state().join("runners/good.json")).unwrap();
    for damage in [
        String::new(),
        stored[..stored.len() / 2].to_owned(),
        stored.replace("\"schema\": 1", "\"schema\": 2"),
        stored.replace("\"registered\"", "\"glrt-secret\""),
        stored.replace("glrt-secret", "not a token"),
        stored.replace("[[runners]]", "[[walkers]]"),
        stored.clone(),
    ] {
        std::fs::write(home.state().join("runners/bad.json"), &damage).unwrap();
        let found = block_on(store.records()).unwrap();
        assert_eq!(found.records, [record("good")]);
        assert_eq!(found.damaged.len(), 1, "{damage}");
        let shown = format!("{} {:?}", found.damaged[0], found.damaged[0]);
        assert!(
            shown.contains("bad.json") && !shown.contains("glrt-secret") && !shown.contains("not a token"),
            "{shown}"
        );
    }
}

#[test]
fn a_record_shows_no_token() {
    assert!(!format!("{:?}", record("a")).contains("glrt-secret"));
}

#[test]
fn the_last_sixteen_retired_tokens_are_remembered() {
    let mut record = record("a");
    record.former_tokens.clear();
    record.former_digests.clear();
    for number in 0..20 {
        record.add_former_token(token(&format!("t{number}")).digest());
    }
    record.add_former_token(token("t10").digest());
    assert_eq!(record.former_tokens.len(), MAX_FORMER_TOKENS);
    assert_eq!(record.former_tokens.first(), Some(&fingerprint("t4")));
    assert_eq!(record.former_tokens.last(), Some(&fingerprint("t10")));
}

/// Two keys of one runner.
fn keys() -> [RunnerKey; 2] {
    ["a".to_owned(), "42@gitlab.example.com".to_owned()].map(|key| RunnerKey::try_from(key).unwrap())
}

#[test]
fn renamed_record_moves_with_what_is_held() {
    let home = Home::new();
    let store = home.open();
    let [old, new] = keys();
    block_on(store.save_record(record("a"))).unwrap();
    block_on(store.save_held(&old, super::held::held())).unwrap();
    let moved = block_on(store.rename_record(&old, &new, None)).unwrap().unwrap();
    let expected = Record { key: new.clone(), enrollment: None, moved_from: Some(old.clone()), ..record("a") };
    assert_eq!(moved, expected);
    assert_eq!(block_on(home.open().records()).unwrap().records, [expected]);
    assert_eq!(block_on(store.held(&new)).unwrap(), super::held::held());
    assert_eq!(names(&home.state().join("runners")), ["42@gitlab.example.com.held", "42@gitlab.example.com.json"]);
    assert_eq!(block_on(store.rename_record(&old, &new, None)).unwrap(), None);
}

#[test]
fn renaming_reads_the_record_as_it_is_now() {
    let home = Home::new();
    let [old, new] = keys();
    block_on(home.open().save_record(record("a"))).unwrap();
    let store = home.open();
    // Another process rotates the token meanwhile.
    block_on(home.open().save_record(Record { credential: Some(credential("newer")), ..record("a") })).unwrap();
    let moved = block_on(store.rename_record(&old, &new, None)).unwrap().unwrap();
    assert_eq!(moved.credential, Some(credential("newer")));
}

#[test]
fn record_that_only_changes_its_enrollment_keeps_its_key() {
    let home = Home::new();
    let store = home.open();
    let [old, _] = keys();
    block_on(store.save_record(record("a"))).unwrap();
    let renamed = block_on(store.rename_record(&old, &old, None)).unwrap();
    assert_eq!(renamed, Some(Record { enrollment: None, ..record("a") }));
    assert_eq!(block_on(store.record(&old)).unwrap(), renamed);
}

#[test]
fn record_with_a_pending_journal_is_not_renamed() {
    let home = Home::new();
    let store = home.open();
    let [old, new] = keys();
    block_on(store.save_record(record("a"))).unwrap();
    for key in [&old, &new] {
        block_on(store.begin(key, super::journal::rotate())).unwrap();
        let refused = block_on(store.rename_record(&old, &new, None));
        assert!(matches!(refused, Err(Error::Unsettled { key: named }) if named == *key));
        assert_eq!(block_on(store.records()).unwrap().records, [record("a")]);
        block_on(store.clear(key)).unwrap();
    }
    assert!(block_on(store.rename_record(&old, &new, None)).is_ok());
}

#[test]
fn rename_cut_by_a_crash_is_finished_with_the_newer_record() {
    let home = Home::new();
    let store = home.open();
    let [old, new] = keys();
    block_on(store.save_record(record("a"))).unwrap();
    block_on(store.save_held(&old, super::held::held())).unwrap();
    block_on(store.rename_record(&old, &new, None)).unwrap();
    // The crash left the old files, and the runner has been rotated under its new key since.
    block_on(store.save_record(record("a"))).unwrap();
    block_on(store.save_held(&old, super::held::held())).unwrap();
    let mut newer = block_on(store.record(&new)).unwrap().unwrap();
    newer.credential = Some(credential("newer"));
    block_on(store.save_record(newer.clone())).unwrap();
    assert_eq!(block_on(store.rename_record(&old, &new, None)).unwrap(), Some(newer.clone()));
    assert_eq!(block_on(store.records()).unwrap().records, [newer]);
    assert_eq!(block_on(store.held(&old)).unwrap(), crate::model::Held::default());
}

#[test]
fn record_of_another_runner_is_not_overwritten_by_a_rename() {
    let home = Home::new();
    let store = home.open();
    let [old, new] = keys();
    let other = Record { key: new.clone(), ..record("a") };
    block_on(store.save_record(record("a"))).unwrap();
    block_on(store.save_record(other.clone())).unwrap();
    assert!(matches!(block_on(store.rename_record(&old, &new, None)), Err(Error::KeyTaken { .. })));
    assert_eq!(block_on(store.records()).unwrap().records, [other, record("a")]);
}

#[test]
fn rename_adds_to_what_is_held_under_the_new_key_and_keeps_damage() {
    let home = Home::new();
    let store = home.open();
    let [old, new] = keys();
    block_on(store.save_record(record("a"))).unwrap();
    std::fs::write(home.state().join("runners/a.held"), "torn").unwrap();
    block_on(store.save_held(&new, super::held::held())).unwrap();
    block_on(store.rename_record(&old, &new, None)).unwrap();
    assert_eq!(block_on(store.held(&new)).unwrap(), super::held::held());
    assert_eq!(std::fs::read_to_string(home.state().join("runners/a.held.damaged-1")).unwrap(), "torn");
}

#[test]
fn forgotten_runner_leaves_no_file() {
    let home = Home::new();
    let store = home.open();
    block_on(store.save_record(record("a"))).unwrap();
    block_on(store.save_held(&record("a").key, super::held::held())).unwrap();
    for _ in 0..2 {
        block_on(store.forget_runner(&record("a").key)).unwrap();
        assert_eq!(names(&home.state().join("runners")), [] as [&str; 0]);
    }
}
