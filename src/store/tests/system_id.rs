use super::*;

fn system_id(home: &Home) -> Result<String, Error> {
    block_on(home.open().system_id()).map(|system_id| system_id.to_string())
}

fn file(home: &Home) -> PathBuf {
    home.config_path().with_file_name(".runner_system_id")
}

fn set_machine_id(home: &Home, content: &str) {
    std::fs::write(home.directory.path().join("machine-id"), content).unwrap();
}

#[test]
fn it_is_derived_from_the_machine_id_as_gitlab_runner_does() {
    let home = Home::new();
    set_machine_id(&home, "0123456789abcdef0123456789abcdef\n");
    // printf gitlab-runner | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    assert_eq!(system_id(&home).unwrap(), "s_ee3af03959fe");
    assert_eq!(std::fs::read_to_string(file(&home)).unwrap(), "s_ee3af03959fe");
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(file(&home).metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(names(file(&home).parent().unwrap()), [".config.toml.lock", ".runner_system_id"]);
}

#[test]
fn without_a_machine_id_it_is_random_and_stays() {
    for content in [None, Some("\n"), Some("uninitialized\n")] {
        let home = Home::new();
        content.into_iter().for_each(|content| set_machine_id(&home, content));
        let first = system_id(&home).unwrap();
        assert!(first.starts_with("r_") && first.len() == 14, "{first}");
        assert_eq!(system_id(&home).unwrap(), first);
        assert_ne!(system_id(&Home::new()).unwrap(), first);
    }
}

#[test]
fn a_file_that_is_there_counts() {
    let home = Home::with("");
    set_machine_id(&home, "abc");
    std::fs::write(file(&home), "r_ABCDEFabc123\n").unwrap();
    assert_eq!(system_id(&home).unwrap(), "r_ABCDEFabc123");
}

#[test]
fn invalid_file_is_reported_and_kept() {
    for content in ["\n", "r_short", "s_0123456789ab trailing", "\u{fffd}"] {
        let home = Home::with("");
        std::fs::write(file(&home), content).unwrap();
        let error = system_id(&home).unwrap_err();
        assert!(matches!(error, Error::SystemId { .. }), "{content}");
        assert!(error.to_string().contains("restore it, or remove it to become a new runner manager"), "{error}");
        assert_eq!(std::fs::read_to_string(file(&home)).unwrap(), content);
    }
}

#[test]
fn empty_file_is_filled_and_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    for machine_id in [None, Some("abc")] {
        let home = Home::with("");
        machine_id.into_iter().for_each(|content| set_machine_id(&home, content));
        std::fs::write(file(&home), "").unwrap();
        std::fs::set_permissions(file(&home), std::fs::Permissions::from_mode(0o640)).unwrap();
        let first = system_id(&home).unwrap();
        assert_eq!(std::fs::read_to_string(file(&home)).unwrap(), first);
        assert_eq!(file(&home).metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(system_id(&home).unwrap(), first);
    }
}

#[test]
fn link_to_a_missing_or_empty_file_is_followed_and_the_id_stays() {
    for is_empty in [false, true] {
        let home = Home::with("");
        let target = home.directory.path().join("kept");
        if is_empty {
            std::fs::write(&target, "").unwrap();
        }
        std::os::unix::fs::symlink("../kept", file(&home)).unwrap();
        let first = system_id(&home).unwrap();
        assert!(first.starts_with("r_"));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), first);
        assert!(file(&home).is_symlink());
        assert_eq!(system_id(&home).unwrap(), first);
    }
}

#[test]
fn link_into_a_missing_directory_is_an_error_that_names_the_remedy() {
    let home = Home::with("");
    std::os::unix::fs::symlink("missing/id", file(&home)).unwrap();
    for _ in 0..2 {
        let error = system_id(&home).unwrap_err();
        assert!(matches!(error, Error::SystemIdLink { .. }));
        let text = error.to_string();
        assert!(text.contains(".runner_system_id` links to") && text.contains("create its directory"), "{text}");
    }
    assert!(file(&home).is_symlink());
    set_machine_id(&home, "abc");
    assert!(system_id(&home).unwrap().starts_with("s_"));
}

#[test]
fn link_of_another_user_is_not_followed_to_create_a_file() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::with("");
    let target = home.directory.path().join("kept");
    std::os::unix::fs::symlink(&target, file(&home)).unwrap();
    std::os::unix::fs::lchown(file(&home), Some(4711), None).unwrap();
    assert!(matches!(system_id(&home), Err(Error::SystemIdLink { .. })));
    assert!(!target.exists());
}

#[test]
fn the_first_answer_is_remembered() {
    let home = Home::new();
    let store = home.open();
    let first = block_on(store.system_id()).unwrap();
    std::fs::remove_file(file(&home)).unwrap();
    assert_eq!(block_on(store.system_id()).unwrap(), first);
}

#[test]
fn machines_differ_by_a_hash_that_is_not_the_machine_id() {
    let home = Home::new();
    assert_eq!(block_on(home.open().machine()), None);
    set_machine_id(&home, "abc\n");
    let machine = block_on(home.open().machine()).unwrap();
    assert_ne!(machine, Fingerprint::of(b"abc"));
    set_machine_id(&home, "abd\n");
    assert_ne!(block_on(home.open().machine()).unwrap(), machine);
}

#[test]
fn only_a_derived_one_is_used_where_it_cannot_be_written() {
    let home = Home::with("");
    std::fs::create_dir(home.config_path().with_file_name(".config.toml.lock")).unwrap();
    assert!(matches!(system_id(&home), Err(Error::Io { .. })));
    set_machine_id(&home, "abc");
    assert!(system_id(&home).unwrap().starts_with("s_"));
    assert!(!file(&home).exists());
}

#[tokio::test]
async fn a_state_directory_from_another_machine_gets_a_name_of_its_own_and_shares_its_runners() {
    let directory = tempfile::tempdir().unwrap();
    let machine_id = directory.path().join("machine-id");
    std::fs::write(&machine_id, "0123456789abcdef0123456789abcdef\n").unwrap();
    let config = Config {
        config_path: directory.path().join("config.toml"),
        state_root: Some(directory.path().join("state")),
        machine_id_path: machine_id.clone(),
        root_locks: None,
        variables: |_| None,
    };
    let original = Store::open(config.clone()).unwrap();
    let name = original.system_id().await.unwrap();
    let mut record = super::records::record("build-1");
    record.machine = original.machine().await;
    record.is_copy = false;
    original.save_record(record.clone()).await.unwrap();
    drop(original);

    // The same machine again: nothing happens.
    let again = Store::open(config.clone()).unwrap();
    assert_eq!(again.system_id().await.unwrap(), name);
    assert_eq!(again.record(&record.key).await.unwrap(), Some(record.clone()));
    drop(again);

    // The copy wakes up on another machine.
    std::fs::write(&machine_id, "fedcba9876543210fedcba9876543210\n").unwrap();
    let copy = Store::open(config.clone()).unwrap();
    let new_name = copy.system_id().await.unwrap();
    assert_ne!(new_name, name);
    let copied = copy.record(&record.key).await.unwrap().unwrap();
    assert!(copied.is_copy);
    assert_eq!(copied.machine, copy.machine().await);
    drop(copy);

    // It is logged once: from now on the directory belongs to this machine.
    let later = Store::open(config).unwrap();
    assert_eq!(later.system_id().await.unwrap(), new_name);
    assert_eq!(later.record(&record.key).await.unwrap(), Some(copied));
}
