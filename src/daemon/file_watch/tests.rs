use std::fs;
use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

const CONFIG: Changed = Changed { config: true, settings: false };
const SETTINGS: Changed = Changed { config: false, settings: true };

const BOTH: Changed = Changed { config: true, settings: true };

/// Far longer than the report of a change takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Long enough for a change to be reported.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

struct ConfigDirectory(tempfile::TempDir);

impl ConfigDirectory {
    fn new() -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        directory.write("config.toml");
        directory.write("agent.toml");
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "writes like another program")]
    fn write(&self, name: &str) {
        fs::write(self.path(name), "# changed\n").unwrap();
    }

    fn replace(&self, name: &str) {
        self.write("beside");
        fs::rename(self.path("beside"), self.path(name)).unwrap();
    }

    fn watched(&self) -> Watched {
        Watched { config: vec![self.path("config.toml")], settings: vec![self.path("agent.toml")] }
    }

    fn watch(&self) -> Watch {
        Watch::new(&self.watched()).unwrap()
    }
}

async fn next_change(watch: &mut Watch) -> Changed {
    timeout(TIMEOUT, watch.changed()).await.unwrap()
}

async fn is_quiet(watch: &mut Watch) -> bool {
    timeout(LONG_ENOUGH, watch.changed()).await.is_err()
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_change() {
    let directory = ConfigDirectory::new();
    let mut watch = directory.watch();
    // A quarter of the quiet period: enough to receive the event, too short to report it.
    while watch.collected.is_none() {
        directory.replace("config.toml");
        let _timed_out = timeout(QUIET_PERIOD / 4, watch.changed()).await;
    }
    assert_eq!(next_change(&mut watch).await, CONFIG);
    assert!(is_quiet(&mut watch).await, "reported once");
}

#[tokio::test]
async fn only_changes_of_watched_files_are_reported() {
    let directory = ConfigDirectory::new();
    let mut watch = directory.watch();
    for _ in 0..2 {
        directory.replace("config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.replace("agent.toml");
        assert_eq!(next_change(&mut watch).await, SETTINGS);
        directory.write("config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.write("agent.toml");
        assert_eq!(next_change(&mut watch).await, SETTINGS);
        directory.replace("other.toml");
        assert!(is_quiet(&mut watch).await);
    }
    fs::remove_file(directory.path("config.toml")).unwrap();
    assert_eq!(next_change(&mut watch).await, CONFIG);
    directory.write("config.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
}

#[tokio::test]
async fn the_target_of_a_symbolic_link_is_watched() {
    let directory = ConfigDirectory::new();
    fs::create_dir(directory.path("elsewhere")).unwrap();
    directory.write("elsewhere/real.toml");
    fs::remove_file(directory.path("config.toml")).unwrap();
    symlink("elsewhere/real.toml", directory.path("config.toml")).unwrap();
    let mut watch = directory.watch();
    directory.replace("elsewhere/real.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
    directory.write("elsewhere/real.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
    directory.replace("elsewhere/other.toml");
    assert!(is_quiet(&mut watch).await);
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_reported() {
    let directory = ConfigDirectory::new();
    let mut watch = directory.watch();
    // Like a bind mount, whose changes are no event of the directory.
    fs::hard_link(directory.path("config.toml"), directory.path("other-name")).unwrap();
    directory.write("other-name");
    assert_eq!(next_change(&mut watch).await, CONFIG);
}

#[tokio::test]
async fn a_stream_of_changes_is_reported_before_it_ends() {
    let directory = ConfigDirectory::new();
    let mut watch = directory.watch();
    let changes = async {
        loop {
            directory.write("config.toml");
            tokio::time::sleep(QUIET_PERIOD / 10).await;
        }
    };
    tokio::select! {
        changed = next_change(&mut watch) => assert_eq!(changed, CONFIG),
        () = changes => {}
    }
}

#[tokio::test]
async fn newly_watched_files_replace_the_previous_ones() {
    let directory = ConfigDirectory::new();
    fs::create_dir(directory.path("secrets")).unwrap();
    let mut watch = directory.watch();
    directory.write("secrets/token");
    assert!(is_quiet(&mut watch).await);
    let settings = vec![directory.path("secrets/token")];
    watch.watcher().unwrap().watch(&settings).unwrap();
    directory.replace("secrets/token");
    assert_eq!(next_change(&mut watch).await, SETTINGS);
    directory.replace("agent.toml");
    assert!(is_quiet(&mut watch).await);
    directory.replace("config.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
}

#[tokio::test]
async fn a_directory_that_is_made_later_is_watched() {
    let directory = ConfigDirectory::new();
    let watched =
        Watched { config: vec![directory.path("a/b/config.toml")], settings: vec![directory.path("agent.toml")] };
    let mut watch = Watch::new(&watched).unwrap();
    for made in ["a", "a/b"] {
        fs::create_dir(directory.path(made)).unwrap();
        assert_eq!(next_change(&mut watch).await, CONFIG, "{made}");
    }
    for _ in 0..2 {
        directory.write("a/b/config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.replace("a/b/config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
    }
    directory.write("a/other");
    assert!(is_quiet(&mut watch).await);
}

#[tokio::test]
async fn directories_made_at_once_with_a_file_are_watched() {
    let directory = ConfigDirectory::new();
    let watched = Watched { config: vec![directory.path("a/b/c/config.toml")], settings: Vec::new() };
    let mut watch = Watch::new(&watched).unwrap();
    fs::create_dir_all(directory.path("a/b/c")).unwrap();
    directory.write("a/b/c/config.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
    assert!(is_quiet(&mut watch).await, "reported once");
    directory.write("a/b/c/config.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
}

#[tokio::test]
async fn a_directory_that_replaces_another_is_watched() {
    let directory = ConfigDirectory::new();
    for name in ["etc", "etc.new"] {
        fs::create_dir(directory.path(name)).unwrap();
        directory.write(&format!("{name}/config.toml"));
    }
    let watched = Watched { config: vec![directory.path("etc/config.toml")], settings: Vec::new() };
    let mut watch = Watch::new(&watched).unwrap();
    fs::rename(directory.path("etc"), directory.path("etc.old")).unwrap();
    fs::rename(directory.path("etc.new"), directory.path("etc")).unwrap();
    assert_eq!(next_change(&mut watch).await, CONFIG);
    for _ in 0..2 {
        directory.write("etc/config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.replace("etc/config.toml");
        assert_eq!(next_change(&mut watch).await, CONFIG);
        directory.write("etc.old/config.toml");
        assert!(is_quiet(&mut watch).await, "the old one is not watched any more");
    }
    fs::remove_dir_all(directory.path("etc")).unwrap();
    assert_eq!(next_change(&mut watch).await, CONFIG);
    fs::rename(directory.path("etc.old"), directory.path("etc")).unwrap();
    assert_eq!(next_change(&mut watch).await, CONFIG);
    directory.write("etc/config.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
}

/// The layout of a Kubernetes volume: `token -> ..data/token`, `..data -> ..1`.
fn volume(directory: &ConfigDirectory) -> Watched {
    for generation in ["volume/..1", "volume/..2"] {
        fs::create_dir_all(directory.path(generation)).unwrap();
        directory.write(&format!("{generation}/token"));
    }
    symlink("..1", directory.path("volume/..data")).unwrap();
    symlink("..data/token", directory.path("volume/token")).unwrap();
    Watched { config: Vec::new(), settings: vec![directory.path("volume/token")] }
}

fn swap_link(directory: &ConfigDirectory, name: &str, target: &str) {
    symlink(target, directory.path("volume/..tmp")).unwrap();
    fs::rename(directory.path("volume/..tmp"), directory.path(name)).unwrap();
}

#[tokio::test]
async fn a_swapped_link_on_the_way_to_a_file_is_reported() {
    let directory = ConfigDirectory::new();
    let mut watch = Watch::new(&volume(&directory)).unwrap();
    for target in ["..2", "..1", "..2"] {
        swap_link(&directory, "volume/..data", target);
        assert_eq!(next_change(&mut watch).await, SETTINGS, "{target}");
    }
    directory.write("volume/..2/token");
    assert_eq!(next_change(&mut watch).await, SETTINGS);
    directory.write("volume/..1/token");
    assert!(is_quiet(&mut watch).await, "no link leads there any more");
    fs::remove_dir_all(directory.path("volume/..1")).unwrap();
    assert!(is_quiet(&mut watch).await);
}

#[tokio::test]
async fn a_link_that_replaces_a_file_is_followed() {
    let directory = ConfigDirectory::new();
    fs::create_dir(directory.path("volume")).unwrap();
    directory.write("volume/real.toml");
    let mut watch = directory.watch();
    swap_link(&directory, "config.toml", &directory.path("volume/real.toml").display().to_string());
    assert_eq!(next_change(&mut watch).await, CONFIG);
    directory.replace("volume/real.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
    symlink("loop", directory.path("loop")).unwrap();
    fs::rename(directory.path("loop"), directory.path("config.toml")).unwrap();
    assert_eq!(next_change(&mut watch).await, CONFIG);
    directory.replace("config.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
}

#[tokio::test]
async fn a_file_is_watched_after_it_was_replaced() {
    let directory = ConfigDirectory::new();
    let mut watch = directory.watch();
    directory.replace("config.toml");
    assert_eq!(next_change(&mut watch).await, CONFIG);
    fs::create_dir(directory.path("elsewhere")).unwrap();
    // Like a bind mount, whose changes are no event of the directory.
    fs::hard_link(directory.path("config.toml"), directory.path("elsewhere/name")).unwrap();
    directory.write("elsewhere/name");
    assert_eq!(next_change(&mut watch).await, CONFIG);
}

#[tokio::test]
async fn one_directory_serves_all_the_files_in_it() {
    let directory = ConfigDirectory::new();
    fs::create_dir(directory.path("secrets")).unwrap();
    let settings: Vec<_> = (0..500).map(|number| directory.path(&format!("secrets/{number}"))).collect();
    let mut watch = Watch::new(&Watched { config: settings.clone(), settings }).unwrap();
    directory.write("secrets/499");
    assert_eq!(next_change(&mut watch).await, BOTH);
    fs::rename(directory.path("secrets"), directory.path("old")).unwrap();
    assert_eq!(next_change(&mut watch).await, BOTH);
    watch.watcher().unwrap().watch(&directory.watched().settings).unwrap();
    directory.write("old/499");
    assert!(is_quiet(&mut watch).await);
}
