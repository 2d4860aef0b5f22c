use super::*;

fn key() -> RunnerKey {
    RunnerKey::enrollment("build-1").unwrap()
}

pub(super) fn rotate() -> Intent {
    Intent {
        operation: JournalOperation::Rotate { url: url(), id: Some(id(42)), old: fingerprint("old"), by_id: false },
        at: time("2026-01-01T00:00:00Z"),
        system_id: Some("s_0123456789ab".parse().unwrap()),
        asked_by: Some(AskedBy::Daemon),
        token: Some(token("old").digest()),
    }
}

pub(super) fn answer(text: &str) -> JournalAnswer {
    JournalAnswer {
        id: Some(id(42)),
        token: Some(token(text)),
        expiry: Expiry::At(time("2026-03-01T00:00:00Z")),
        obtained_at: Some(time("2026-02-01T00:00:00Z")),
        is_documented: true,
    }
}

fn pending(store: &Store) -> Vec<Pending> {
    block_on(store.pending()).unwrap()
}

fn file(home: &Home) -> PathBuf {
    home.state().join("runners/build-1.pending")
}

#[test]
fn an_operation_is_pending_until_it_is_cleared() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    assert_eq!(pending(&home.open()), [Pending { key: key(), intent: rotate(), answer: None }]);
    block_on(store.answered(&key(), answer("new"))).unwrap();
    assert_eq!(pending(&home.open()), [Pending { key: key(), intent: rotate(), answer: Some(answer("new")) }]);
    block_on(store.clear(&key())).unwrap();
    block_on(store.clear(&key())).unwrap();
    assert_eq!(pending(&store), []);
}

#[test]
fn an_answer_that_is_kept_elsewhere_leaves_its_request_in_the_journal() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    block_on(store.answered(&key(), answer("new"))).unwrap();
    assert!(matches!(block_on(store.begin(&key(), rotate())), Err(Error::Unsettled { .. })));
    block_on(store.take_back_to(&key(), rotate())).unwrap();
    assert_eq!(pending(&home.open()), [Pending { key: key(), intent: rotate(), answer: None }]);
}

#[test]
fn the_answer_takes_no_new_space() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    let before = std::fs::metadata(file(&home)).unwrap();
    let longest = JournalAnswer { is_documented: false, ..answer(&"x".repeat(512)) };
    block_on(store.answered(&key(), longest)).unwrap();
    let after = std::fs::metadata(file(&home)).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((before.len(), after.len()), (4096, 4096));
    assert_eq!((before.ino(), before.blocks()), (after.ino(), after.blocks()));
    assert_eq!(after.mode() & 0o777, 0o600);
}

#[test]
fn every_operation_reads_back_at_its_longest() {
    let home = Home::new();
    let store = home.open();
    let longest: crate::model::ServerUrl = format!("https://h/{}", "a".repeat(1010)).parse().unwrap();
    let at = time("2026-01-01T00:00:00Z");
    let seed = fingerprint("seed");
    let operations = [
        JournalOperation::Register {
            url: longest.clone(),
            description: "\u{1}".repeat(200),
            seed,
            common: Some(RunnerKey::registration(&longest, "build")),
        },
        JournalOperation::Unregister {
            url: longest,
            id: RunnerId::try_new(i64::MAX as u64).ok(),
            fingerprint: seed,
            manager_only: true,
            fate: Some(StoredFate::KeepText),
        },
    ];
    for operation in operations {
        let intent = Intent { operation, at, ..rotate() };
        block_on(store.begin(&key(), intent.clone())).unwrap();
        assert_eq!(pending(&store)[0].intent, intent);
    }
}

#[test]
fn a_long_description_is_cut() {
    let home = Home::new();
    let store = home.open();
    let operation = JournalOperation::Register {
        url: url(),
        description: "ü".repeat(900),
        seed: fingerprint("seed"),
        common: None,
    };
    let intent = Intent { operation, ..rotate() };
    block_on(store.begin(&key(), intent)).unwrap();
    let JournalOperation::Register { description, .. } = pending(&store).remove(0).intent.operation else { panic!() };
    assert_eq!(description, "ü".repeat(200));
}

#[test]
fn an_answer_torn_at_any_byte_counts_as_none() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    let without = std::fs::read(file(&home)).unwrap();
    block_on(store.answered(&key(), answer("new"))).unwrap();
    let with = std::fs::read(file(&home)).unwrap();
    let first = (0..4096).find(|index| with[*index] != without[*index]).unwrap();
    let last = (0..4096).rfind(|index| with[*index] != without[*index]).unwrap();
    for torn in first..=last {
        std::fs::write(file(&home), [&with[..torn], &without[torn..]].concat()).unwrap();
        let found = pending(&store);
        assert_eq!((&found[0].intent, &found[0].answer), (&rotate(), &None), "torn at {torn}");
    }
}

#[test]
fn an_intent_torn_at_any_byte_was_never_sent() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    let whole = std::fs::read(file(&home)).unwrap();
    let text_end = whole.iter().rposition(|byte| *byte == b'\n').unwrap();
    for torn in 0..=text_end {
        std::fs::write(file(&home), &whole[..torn]).unwrap();
        assert_eq!(pending(&store), [], "torn at {torn}");
        assert!(!file(&home).exists());
    }
}

#[test]
fn a_lost_reset_is_found_by_its_token() {
    let home = Home::new();
    let store = home.open();
    let lost = |text: &str| block_on(store.lost_resets_of(token(text).digest())).unwrap();
    assert_eq!(lost("old"), []);
    block_on(store.begin(&key(), rotate())).unwrap();
    assert_eq!((lost("old"), lost("new")), (vec![key()], vec![]));
    // Another runner's journal that cannot be read holds up nothing.
    std::fs::create_dir(home.state().join("runners/build-2.pending")).unwrap();
    assert_eq!(lost("old"), [key()]);
    block_on(store.answered(&key(), answer("new"))).unwrap();
    assert_eq!(lost("old"), []);
}

#[test]
fn an_unsettled_answer_is_never_overwritten() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    block_on(store.begin(&key(), rotate())).unwrap();
    block_on(store.answered(&key(), answer("new"))).unwrap();
    assert!(matches!(block_on(store.begin(&key(), rotate())), Err(Error::Unsettled { .. })));
    assert_eq!(pending(&store)[0].answer, Some(answer("new")));
}

#[test]
fn an_answer_without_a_token_makes_room_for_the_next_operation() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    block_on(store.answered(&key(), JournalAnswer { token: None, ..answer("none") })).unwrap();
    block_on(store.begin(&key(), rotate())).unwrap();
    assert_eq!(pending(&store)[0].answer, None);
}

#[test]
fn an_answer_to_nothing_is_refused() {
    let home = Home::new();
    let error = block_on(home.open().answered(&key(), answer("new"))).unwrap_err();
    assert!(matches!(error, Error::NotBegun { .. }));
}

#[test]
fn neither_debug_nor_errors_show_the_token() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    block_on(store.answered(&key(), answer("glrt-secret"))).unwrap();
    assert!(!format!("{:?}", pending(&store)).contains("glrt-secret"));
}

#[test]
fn an_answer_with_any_byte_changed_counts_as_none() {
    let home = Home::new();
    let store = home.open();
    block_on(store.begin(&key(), rotate())).unwrap();
    block_on(store.answered(&key(), answer("new"))).unwrap();
    let whole = std::fs::read(file(&home)).unwrap();
    let text_end = whole.iter().rposition(|byte| *byte == b'\n').unwrap();
    for index in 3072..text_end {
        let mut changed = whole.clone();
        changed[index] = if changed[index] == b'e' { b'f' } else { b'e' };
        std::fs::write(file(&home), changed).unwrap();
        assert_eq!(pending(&store)[0].answer, None, "changed at {index}");
    }
}

#[test]
fn what_another_version_wrote_is_neither_cleared_nor_overwritten() {
    let home = Home::new();
    let store = home.open();
    let json = "{\"operation\":\"dance\"}";
    std::fs::write(
        file(&home),
        format!("{}\n{json}\n{}", crate::secret::sha256_hex(json.as_bytes()), " ".repeat(4000)),
    )
    .unwrap();
    assert_eq!(pending(&store), []);
    assert!(file(&home).exists());
    assert!(matches!(block_on(store.begin(&key(), rotate())), Err(Error::Unsettled { .. })));
}
