//! Two tokens that share the 32 bits of a fingerprint are two tokens.

use super::super::fuzzing::applied as apply;
use super::*;

/// Their SHA-256 digests both begin with `08e6122e`.
const ONE: &str = "glrt-collision-0043747";
const OTHER: &str = "glrt-collision-0122885";

fn entry(name: &str, token: &str) -> String {
    format!("[[runners]]\nname = \"{name}\"\nurl = \"{URL}\"\ntoken = \"{token}\"\n")
}

fn entries(text: &str) -> Vec<Entry> {
    config_file::ConfigFile::parse(text, reading()).unwrap().entries()
}

#[test]
fn the_two_tokens_share_a_fingerprint() {
    assert_eq!(fingerprint(ONE), fingerprint(OTHER));
    assert_ne!(token(ONE).digest(), token(OTHER).digest());
}

#[test]
fn entry_of_a_colliding_token_is_not_selected() {
    let entry = &entries(&entry("b", OTHER))[0];
    assert!(!by_token(&[ONE]).matches(entry) && by_token(&[OTHER]).matches(entry));
}

#[test]
fn renewal_and_removal_leave_the_entry_of_a_colliding_token() {
    let text = format!("{}\n{}", entry("a", ONE), entry("b", OTHER));
    let renewal =
        Edit::Renew { target: by_token(&[ONE]), id: Some(id(1)), credential: credential("new"), over: known() };
    let (renewed, done) = apply(&text, &renewal, reading()).unwrap();
    assert_eq!(done.entries, 1);
    assert!(!renewed.contains(ONE) && renewed.ends_with(&entry("b", OTHER)), "{renewed}");
    let (rest, done) = apply(&text, &Edit::Remove { target: by_token(&[ONE]) }, reading()).unwrap();
    assert_eq!((done.entries, rest), (1, entry("b", OTHER)));
}

#[test]
fn insertion_beside_a_colliding_token_appends() {
    let text = EntryText::parse(&entry("a", ONE)).unwrap();
    let insertion = Edit::Insert { text, id: None, credential: credential(ONE) };
    let (inserted, _) = apply(&entry("b", OTHER), &insertion, reading()).unwrap();
    assert!(inserted.starts_with(&entry("b", OTHER)) && inserted.contains(ONE), "{inserted}");
}

#[test]
fn keys_of_colliding_tokens_differ() {
    let [one, other] = [ONE, OTHER].map(|text| RunnerKey::found(&url(), None, token(text).digest()));
    assert_ne!(one, other);
    let digits = one.as_str().strip_prefix("token-").unwrap().split_once('@').unwrap().0;
    assert_eq!(digits, &token(ONE).digest().to_hex()[..32]);
}

#[test]
fn former_tokens_and_seeds_that_collide_are_told_apart() {
    let mut record = super::records::record("a");
    record.set_seed(&token(ONE));
    assert!(record.has_seed(&token(ONE)) && !record.has_seed(&token(OTHER)));
    record.add_former_token(token(ONE).digest());
    record.add_former_token(token(OTHER).digest());
    record.remove_former_token(token(OTHER).digest());
    assert!(record.former_digests.contains(&token(ONE).digest()));
    assert!(!record.former_digests.contains(&token(OTHER).digest()));
    assert!(record.former_tokens.contains(&fingerprint(ONE)));
}

#[test]
fn former_token_of_version_0_1_selects_no_entry() {
    let mut record = super::records::record("a");
    record.former_tokens = vec![fingerprint(ONE), fingerprint("known")];
    record.former_digests = vec![token("known").digest()];
    let target = by_token(&["known"]);
    let text = entry("a", ONE);
    assert!(!target.matches(&entries(&text)[0]), "another token can have the same eight digits");
    let renewal = Edit::Renew { target, id: None, credential: credential("new"), over: known() };
    assert!(matches!(apply(&text, &renewal, reading()), Err(Error::NoSuchEntry { .. })));
}

#[test]
fn name_narrows_the_selection() {
    let text = format!("{}\n{}", entry("a", ONE), entry("b", ONE));
    let target = EntrySelector { name: Some("b".to_owned()), ..by_token(&[ONE]) };
    let (rest, done) = apply(&text, &Edit::Remove { target: target.clone() }, reading()).unwrap();
    assert_eq!((done.entries, rest), (1, entry("a", ONE)));
    let renewal = Edit::Renew { target, id: None, credential: credential("new"), over: known() };
    let (renewed, done) = apply(&text, &renewal, reading()).unwrap();
    assert!(done.entries == 1 && renewed.starts_with(&entry("a", ONE)), "{renewed}");
}
