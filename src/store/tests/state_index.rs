use super::records::record;
use super::*;
use crate::model::{Candidate, CandidateSource, RunnerKey};

fn intent(old: &str) -> Intent {
    let operation = JournalOperation::Rotate { url: url(), id: None, old: fingerprint(old), by_id: false };
    let at = time("2026-01-01T00:00:00Z");
    Intent { operation, at, system_id: None, asked_by: None, token: Some(token(old).digest()) }
}

fn owned(text: &str, owner: u64) -> Held {
    let candidate = Candidate {
        token: token(text),
        source: CandidateSource::Found,
        noted_at: time("2026-01-01T00:00:00Z"),
        obtained_at: None,
        expiry: Expiry::Never,
        id: Some(id(owner)),
        origin: None,
        refused: None,
    };
    Held { candidates: vec![candidate], ..Held::default() }
}

fn found(store: &Store, query: RecordQuery) -> Vec<String> {
    let records = block_on(store.records_with(query)).unwrap();
    records.into_iter().map(|record| record.key.as_str().to_owned()).collect()
}

/// With and without so many files that the directory is watched.
fn homes() -> [Home; 2] {
    let [few, many] = [Home::new(), Home::new()];
    many.open();
    (0..20).for_each(|number| std::fs::write(many.state().join(format!("runners/{number}.lock")), "").unwrap());
    [few, many]
}

#[test]
fn a_record_is_found_by_what_it_holds_whichever_process_wrote_it() {
    for home in homes() {
        let (mine, other) = (home.open(), home.open());
        let by_name = || RecordQuery::Name("build".to_owned());
        assert!(found(&mine, by_name()).is_empty());
        block_on(other.save_record(record("a"))).unwrap();
        block_on(mine.save_record(Record { name: Some("b".to_owned()), id: Some(id(7)), ..record("b") })).unwrap();
        assert_eq!(found(&mine, by_name()), ["a"]);
        assert_eq!(found(&mine, RecordQuery::Id(id(7))), ["b"]);
        for held in ["glrt-secret", "old", "seed"] {
            assert_eq!(found(&mine, RecordQuery::Token(token(held).digest())), ["a", "b"], "{held}");
        }
        block_on(other.save_record(Record { credential: Some(credential("newer")), ..record("a") })).unwrap();
        assert_eq!(found(&mine, RecordQuery::Token(token("glrt-secret").digest())), ["b"]);
        assert_eq!(found(&mine, RecordQuery::Token(token("newer").digest())), ["a"]);
        let (old, new) = (record("a").key, RunnerKey::enrollment("moved").unwrap());
        block_on(other.rename_record(&old, &new, None)).unwrap();
        assert_eq!(found(&mine, by_name()), ["moved"]);
        block_on(other.forget_runner(&new)).unwrap();
        assert!(found(&mine, by_name()).is_empty());
    }
}

#[test]
fn a_record_of_ours_is_found_by_what_another_process_has_made_of_it_since() {
    for home in homes() {
        let (mine, other) = (home.open(), home.open());
        let named = |name: &str| Record { name: Some(name.to_owned()), ..record("a") };
        let by_name = |name: &str| found(&mine, RecordQuery::Name(name.to_owned()));
        assert!(by_name("first").is_empty());
        block_on(mine.save_held(&record("a").key, owned("kept", 9))).unwrap();
        for round in ["first", "second"] {
            // With and without a question in between, before which nothing is read again.
            block_on(mine.save_record(named(round))).unwrap();
            assert!(round == "second" || by_name("first") == ["a"]);
            block_on(other.save_record(named("theirs"))).unwrap();
            assert_eq!((by_name(round), by_name("theirs")), (Vec::new(), vec!["a".to_owned()]), "{round}");
            assert_eq!(found(&mine, RecordQuery::CandidateOf(id(9))), ["a"]);
            block_on(mine.save_record(named("last"))).unwrap();
            assert_eq!((by_name("last"), by_name("theirs")), (vec!["a".to_owned()], Vec::new()), "{round}");
            assert_eq!(found(&mine, RecordQuery::CandidateOf(id(9))), ["a"]);
        }
    }
}

#[test]
fn a_candidate_is_found_by_the_runner_that_it_was_named_for() {
    for home in homes() {
        let (mine, other) = (home.open(), home.open());
        block_on(other.save_record(record("a"))).unwrap();
        assert!(found(&mine, RecordQuery::CandidateOf(id(9))).is_empty());
        block_on(other.save_held(&record("a").key, owned("kept", 9))).unwrap();
        assert_eq!(found(&mine, RecordQuery::CandidateOf(id(9))), ["a"]);
        block_on(other.save_held(&record("a").key, Held::default())).unwrap();
        assert!(found(&mine, RecordQuery::CandidateOf(id(9))).is_empty());
    }
}

#[test]
fn a_reset_that_another_process_has_lost_is_found_by_its_token() {
    for home in homes() {
        let (mine, other) = (home.open(), home.open());
        let lost = || block_on(mine.lost_resets_of(token("old").digest())).unwrap();
        let key = record("a").key;
        assert!(lost().is_empty());
        block_on(other.begin(&key, intent("old"))).unwrap();
        block_on(other.begin(&record("b").key, intent("older"))).unwrap();
        assert_eq!(lost(), std::slice::from_ref(&key));
        block_on(other.clear(&key)).unwrap();
        assert!(lost().is_empty());
    }
}

#[test]
fn a_record_that_is_damaged_answers_nothing_until_it_is_corrected() {
    for home in homes() {
        let store = home.open();
        let path = |home: &Home| home.state().join("runners/a.json");
        block_on(store.save_record(record("a"))).unwrap();
        let whole = std::fs::read(path(&home)).unwrap();
        let by_id = || RecordQuery::Id(id(42));
        assert_eq!(found(&store, by_id()), ["a"]);
        std::fs::write(path(&home), "{").unwrap();
        assert!(found(&store, by_id()).is_empty());
        std::fs::write(path(&home), whole).unwrap();
        assert_eq!(found(&store, by_id()), ["a"]);
    }
}

#[test]
fn a_directory_that_is_replaced_is_read_anew() {
    for home in homes() {
        let store = home.open();
        block_on(store.save_record(record("a"))).unwrap();
        assert_eq!(found(&store, RecordQuery::Id(id(42))), ["a"]);
        let (runners, aside) = (home.state().join("runners"), home.state().join("aside"));
        std::fs::rename(&runners, &aside).unwrap();
        std::fs::create_dir(&runners).unwrap();
        std::fs::copy(aside.join("a.json"), aside.join("copy")).unwrap();
        block_on(store.save_record(record("b"))).unwrap();
        assert_eq!(found(&store, RecordQuery::Id(id(42))), ["b"]);
    }
}

#[test]
fn more_changes_than_the_kernel_keeps_are_all_found() {
    let [_, home] = homes();
    let store = home.open();
    assert!(found(&store, RecordQuery::Id(id(42))).is_empty());
    block_on(store.save_record(record("a"))).unwrap();
    // The queue holds 16,384 events by default, and a record that is written gives a few.
    let runners = home.state().join("runners");
    for number in 0..20_000 {
        std::fs::write(runners.join(format!("x{}.pending", number % 7)), "").unwrap();
    }
    assert_eq!(found(&store, RecordQuery::Id(id(42))), ["a"]);
}
