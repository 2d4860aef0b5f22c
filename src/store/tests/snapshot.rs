use super::*;
use crate::store::config_file::ConfigFile;

fn snapshot(entries: &[(&str, u64, &str)]) -> Snapshot {
    let texts = entries.iter().map(|(name, id, token)| {
        format!("[[runners]]\nname = \"{name}\"\nurl = \"{URL}\"\nid = {id}\ntoken = \"{token}\"\n\n# a comment\n")
    });
    let text: String = texts.collect();
    Snapshot::new(ConfigFile::parse(&text, reading()).unwrap().entries(), true)
}

const A: (&str, u64, &str) = ("a", 1, "t1");
const B: (&str, u64, &str) = ("b", 2, "t2");
const C: (&str, u64, &str) = ("c", 3, "t3");

#[test]
fn two_versions_differ_in_the_entries_that_only_one_has() {
    let new_token = ("b", 2, "t4");
    let other_id = ("b", 9, "t2");
    // Before, after, ids of the entries that differ, whether the others have another order, and whether the runners are
    // the same.
    let table: [(&[_], &[_], &[u64], bool, bool); 8] = [
        (&[A, B, C], &[A, B, C], &[], false, true),
        (&[A, B, C], &[A, new_token, C], &[2, 2], false, true),
        (&[A, B, C], &[A, other_id, C], &[2, 9], false, false),
        (&[A, C], &[A, B, C], &[2], false, false),
        (&[A, B, C], &[A, C], &[2], false, false),
        (&[A, B, C], &[C, B, A], &[], true, true),
        (&[A, B, C], &[C, A], &[2], true, false),
        (&[], &[A], &[1], false, false),
    ];
    for (before, after, ids, is_reordered, has_same_runners) in table {
        let difference = snapshot(after).difference(&snapshot(before));
        let mut found: Vec<_> = difference.entries.entries.iter().map(|entry| entry.id.unwrap().number()).collect();
        found.sort_unstable();
        assert_eq!(found, ids, "{before:?} {after:?}");
        assert_eq!(difference.is_reordered, is_reordered, "{before:?} {after:?}");
        assert_eq!(difference.has_same_runners, has_same_runners, "{before:?} {after:?}");
        assert_eq!(difference.is_empty(), ids.is_empty() && !is_reordered);
        let concerned = |number| difference.concerns(&target(number));
        assert_eq!((1..=9).filter(|number| concerned(*number)).count() > 0, !difference.is_empty());
        assert!(ids.iter().all(|number| concerned(*number)));
    }
}

#[test]
fn what_this_process_writes_is_no_version_that_it_has_found() {
    let home = Home::with("[[runners]]\nurl = \"https://gitlab.example.com\"\nid = 1\ntoken = \"old\"\n");
    let store = home.open();
    let found = || block_on(store.read()).unwrap().found;
    let first = found();
    block_on(store.edit(renew(1, "new"))).unwrap();
    assert_eq!(found(), first);
    home.write(&format!("{}# outside\n", home.read()));
    assert_eq!(found(), first + 1);
    std::fs::remove_file(home.config_path()).unwrap();
    assert_eq!(found(), first + 2);
}
