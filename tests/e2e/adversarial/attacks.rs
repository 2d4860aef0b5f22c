//! The attacks. Each returns how the attacker has won, if he has.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fake_gitlab::{Endpoint, NewRunner, Request, Scope};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, fgetxattr, fsetxattr, mknodat};

use rustix::process::Signal;
use test_support::Process;

use crate::attacker::Attacker;
use crate::hang::{disk_that_hangs, share_that_hangs};
use crate::scene::{Scene, in_scenes};
use crate::{locks, network, promises, terminal};

type Attack = fn() -> Result<(), String>;

pub(crate) const ATTACKS: [(&str, Attack); 33] = [
    ("link-to-a-file-of-roots", link_to_a_file),
    ("link-to-a-missing-file-of-roots", link_to_a_missing_file),
    ("link-on-the-way", link_on_the_way),
    ("link-swapped-in", link_swapped_in),
    ("link-swapped-in-on-notice", link_swapped_in_on_notice),
    ("directory-swapped-in", directory_swapped_in),
    ("file-given-away-as-a-lock", file_given_away),
    ("token-of-a-victim-by-its-id", victims_token),
    ("environment-sent-away", environment_sent_away),
    ("files-that-block-or-never-end", files_that_block),
    ("pipe-swapped-in", pipe_swapped_in),
    ("disk-that-hangs", disk_that_hangs),
    ("share-that-hangs", share_that_hangs),
    ("state-in-a-foreign-directory", state_in_a_foreign_directory),
    ("settings-of-another-user", settings_of_another_user),
    ("attributes-lost", attributes_lost),
    ("immutable-found-too-late", immutable_found_too_late),
    ("lock-held-for-ever", locks::lock_held_for_ever),
    ("lock-that-is-no-file", locks::lock_that_is_no_file),
    ("mounted-file-held-for-ever", locks::mounted_file_held_for_ever),
    ("mounted-file-held-while-pressing", locks::mounted_file_held_while_pressing),
    ("access-token-by-foreign-trust", network::access_token_by_foreign_trust),
    ("registration-token-by-foreign-trust", network::registration_token_by_foreign_trust),
    ("one-file-mounted", promises::mounted_file),
    ("certificates-of-another-user", promises::certificates_of_another_user),
    ("host-rebound", network::host_rebound),
    ("connections-half-open", network::connections_half_open),
    ("socket-served-by-another", network::socket_served_by_another),
    ("socket-in-a-foreign-directory", network::socket_in_a_foreign_directory),
    ("files-that-cannot-be-locked", promises::files_that_cannot_be_locked),
    ("files-of-a-group", promises::files_of_a_group),
    ("lines-forged", terminal::lines_forged),
    ("token-in-the-wrong-place", terminal::token_in_the_wrong_place),
];

fn link_to_a_file() -> Result<(), String> {
    let scene = Scene::new();
    for target in ["safe/config.toml", "safe/plain"] {
        scene.link(scene.path(target), "config/config.toml");
        scene.run_each()?;
        scene.link(scene.path(target), "config/.runner_system_id");
        scene.run_each()?;
    }
    Ok(())
}

fn link_to_a_missing_file() -> Result<(), String> {
    let scene = Scene::new();
    for name in ["config/config.toml", "config/.runner_system_id"] {
        scene.link(scene.path("safe/profile.sh"), name);
        scene.run_each()?;
    }
    Ok(())
}

fn link_on_the_way() -> Result<(), String> {
    let scene = Scene::new();
    fs::rename(scene.path("config"), scene.path("home")).unwrap();
    fs::create_dir(scene.path("config")).unwrap();
    scene.give("config");
    scene.link(scene.path("safe"), "config/below");
    let config = scene.path("config/below/config.toml");
    for args in [["list"], ["verify"]] {
        scene.check(&args, &scene.run_with(&args, &[("CONFIG_FILE", config.to_str().unwrap())]))?;
    }
    let args = ["rotate", "--all"];
    scene.check(&args, &scene.run_with(&args, &[("CONFIG_FILE", config.to_str().unwrap())]))
}

/// config.toml and a link to a file of root's trade places while root edits it.
fn link_swapped_in() -> Result<(), String> {
    in_scenes(swap_link)
}

fn swap_link(scene: &Scene, rounds: u32) -> Result<(), String> {
    let link = scene.link(scene.path("safe/config.toml"), "config/link");
    let mut attacker = Attacker::start("exchange", &[&scene.path("config/config.toml"), &link]);
    for _ in 0..rounds {
        let args = ["rotate", "--all"];
        scene.check(&args, &scene.run(&args))?;
    }
    if attacker.is_running() { Ok(()) } else { Err("the attacker has ended".to_owned()) }
}

/// A file of root's in the attacker's directory, which he cannot read, takes the name of the lock while root makes it.
/// The probe's file is noticed, and a link takes the place of config.toml.
fn link_swapped_in_on_notice() -> Result<(), String> {
    in_scenes(|scene, rounds| {
        let link = scene.link(scene.path("safe/config.toml"), "config/link");
        let (config, directory) = (scene.path("config/config.toml"), scene.path("config"));
        let mut attacker = Attacker::start("exchange-on-notice", &[&config, &link, &directory]);
        for round in 0..rounds {
            if round % 10 == 0 {
                scene.run_each()?;
            } else {
                let args = ["rotate", "--all"];
                scene.check(&args, &scene.run(&args))?;
            }
        }
        if attacker.is_running() { Ok(()) } else { Err("the attacker has ended".to_owned()) }
    })
}

/// A directory on the way to config.toml and a link to root's trade places while root works.
fn directory_swapped_in() -> Result<(), String> {
    in_scenes(|scene, rounds| {
        let below = scene.path("config/below");
        fs::create_dir(&below).unwrap();
        fs::copy(scene.path("config/config.toml"), below.join("config.toml")).unwrap();
        scene.give("config/below");
        scene.give("config/below/config.toml");
        let link = scene.link(scene.path("safe"), "config/link");
        let mut attacker = Attacker::start("exchange", &[&below, &link]);
        let config = below.join("config.toml");
        for _ in 0..rounds {
            let args = ["rotate", "--all", "--config", config.to_str().unwrap()];
            scene.check(&args, &scene.run(&args))?;
        }
        if attacker.is_running() { Ok(()) } else { Err("the attacker has ended".to_owned()) }
    })
}

fn file_given_away() -> Result<(), String> {
    in_scenes(take_lock_name)
}

fn take_lock_name(scene: &Scene, rounds: u32) -> Result<(), String> {
    let file = scene.write("config/of-root", "of-root\n");
    let mut attacker = Attacker::start("take-name", &[&file, &scene.path("config/.config.toml.lock")]);
    for _ in 0..rounds {
        scene.run(&["rotate", "--all"]);
    }
    if !attacker.is_running() {
        return Err("the attacker has ended".to_owned());
    }
    drop(attacker);
    let names = [file, scene.path("config/.config.toml.lock")];
    let found = names.iter().find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("root")));
    match found.map(|path| fs::metadata(path).unwrap().uid()) {
        Some(0) => Ok(()),
        Some(user) => Err(format!("a file of root's belongs to user {user}")),
        None => Err("a file of root's was written over".to_owned()),
    }
}

/// An entry names the id of another runner, and the agent has an access token that could reset that one.
fn victims_token() -> Result<(), String> {
    let scene = Scene::new();
    let (victim, token) = scene.gitlab.add_runner(NewRunner::instance());
    scene.write("access", &scene.gitlab.add_access_token([Scope::Api]));
    let access = format!("access_token = {{ file = \"{}\" }}", scene.path("access").display());
    scene.write_fast_settings(&format!("[[server]]\nurl = \"{}\"\n{access}\n", scene.gitlab.url()));
    scene.write_config(&scene.entry("mine", victim, "glrt-made-up-by-the-attacker"));
    scene.give("config/config.toml");
    let daemon = scene.start(&["run"]);
    let asked = |_: &Process| scene.gitlab.requests_to(Endpoint::Verify).len() >= 3;
    let is_refused = daemon.wait_for(Duration::from_secs(20), asked);
    daemon.stop(Signal::QUIT);
    if !is_refused {
        return Err("the made-up token was not refused again and again: nothing is shown".to_owned());
    }
    for _ in 0..3 {
        scene.run(&["run", "--once"]);
    }
    if scene.gitlab.runner(victim).is_none_or(|runner| runner.token != token) {
        return Err("the victim's token was reset".to_owned());
    }
    if scene.config().contains(&token) { Err("the attacker has the victim's token".to_owned()) } else { Ok(()) }
}

/// Entries of the attacker's name variables of root's environment, and a server of his own.
fn environment_sent_away() -> Result<(), String> {
    let scene = Scene::new();
    let secrets = ["MY_OWN", "REGISTRATION_TOKEN", "GITLAB_TOKEN", "HTTPS_PROXY"];
    let entries = || secrets.map(|name| scene.entry(name, 7, &format!("${name}"))).concat();
    let variables = secrets.map(|name| (name, "glrt-of-roots-environment"));
    let check = |what: &str| {
        for args in [&["verify"][..], &["run", "--once"]] {
            scene.run_with(args, &variables);
        }
        let is_sent = |request: &Request| request.parameter("token") == Some("glrt-of-roots-environment");
        if scene.gitlab.requests().iter().any(is_sent) { Err(format!("{what} was sent")) } else { Ok(()) }
    };
    // Root's own file may name a runner's token.
    scene.write_config(&scene.entry("mine", 7, "$MY_OWN"));
    if check("it").is_ok() {
        return Err("no variable is sent at all: nothing is shown".to_owned());
    }
    scene.gitlab.clear_requests();
    scene.write_config(&entries());
    scene.give("config/config.toml");
    check("a variable that a file of the attacker's names")?;
    // In root's own file, an entry may name a runner's token, but none of the agent's secrets.
    let own: String = secrets[1..].iter().map(|name| scene.entry(name, 7, &format!("${{{name}}}"))).collect();
    scene.write_config(&own);
    check("a secret of the agent's own")
}

fn make_pipe(path: &Path) {
    let _absent = fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn make_sparse(path: &Path) {
    let _absent = fs::remove_file(path);
    File::create(path).unwrap().set_len(3 << 30).unwrap();
}

/// Runs a command with at most 2 GiB of memory. It must end, and not for lack of memory.
fn ends(scene: &Scene, args: &[&str], what: &str) -> Result<(), String> {
    let limited = "ulimit -v 2097152; exec \"$0\" \"$@\"";
    let process = test_support::Process::start(scene.shell(limited, args));
    let output = process.try_end().map_err(|_| format!("{args:?} hangs at {what}"))?;
    match output.code {
        Some(code) if code < 100 => Ok(()),
        code => Err(format!("{args:?} ended with {code:?} at {what}: {}", output.text())),
    }
}

fn files_that_block() -> Result<(), String> {
    type Make = fn(&Path);
    let kernel: Make = |path| {
        let _absent = fs::remove_file(path);
        std::os::unix::fs::symlink("/proc/kmsg", path).unwrap();
    };
    let map: Make = |path| {
        let _absent = fs::remove_file(path);
        std::os::unix::fs::symlink("/proc/self/pagemap", path).unwrap();
    };
    let makes: [(&str, Make); 4] =
        [("a pipe", make_pipe), ("a sparse file", make_sparse), ("/proc/kmsg", kernel), ("/proc/self/pagemap", map)];
    for (what, make) in makes {
        for name in ["config/config.toml", "config/.runner_system_id", "config/certs/localhost.crt"] {
            let scene = Scene::new();
            fs::create_dir_all(scene.path("config/certs")).unwrap();
            let address = scene.gitlab.url();
            let secure = address.replacen("http://127.0.0.1", "https://localhost", 1);
            scene.write_config(
                &scene.config().replace(&address, if name.contains("certs") { &secure } else { &address }),
            );
            make(&scene.path(name));
            for args in [&["list"][..], &["verify"], &["run", "--once"]] {
                ends(&scene, args, &format!("{what} as {name}"))?;
            }
        }
        let scene = Scene::new();
        make(&scene.path("token"));
        let token = scene.path("token");
        let url = scene.gitlab.url();
        ends(
            &scene,
            &["register", "--url", &url, "--token-file", token.to_str().unwrap()],
            &format!("{what} as a token"),
        )?;
        make(&scene.path("agent.toml"));
        ends(&scene, &["verify"], &format!("{what} as agent.toml"))?;
    }
    Ok(())
}

/// config.toml and a pipe trade places while root reads it.
fn pipe_swapped_in() -> Result<(), String> {
    in_scenes(swap_pipe)
}

fn swap_pipe(scene: &Scene, rounds: u32) -> Result<(), String> {
    let pipe = scene.path("config/pipe");
    make_pipe(&pipe);
    scene.give("config/pipe");
    let mut attacker = Attacker::start("exchange", &[&scene.path("config/config.toml"), &pipe]);
    for _ in 0..rounds {
        ends(scene, &["list"], "a pipe that is swapped in")?;
    }
    if attacker.is_running() { Ok(()) } else { Err("the attacker has ended".to_owned()) }
}

fn state_in_a_foreign_directory() -> Result<(), String> {
    let scene = Scene::new();
    fs::create_dir(scene.path("foreign")).unwrap();
    scene.give("foreign");
    let run = |state: &str| {
        let args = ["verify", "--state-dir", state];
        (args.map(str::to_owned), scene.run(&args))
    };
    // The name of this config.toml's own directory.
    let (_, output) = run(scene.path("own").to_str().unwrap());
    output.exits(0);
    let name = fs::read_dir(scene.path("own")).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let check = |state: &str| {
        let (args, output) = run(scene.path(state).to_str().unwrap());
        scene.check(&args.each_ref().map(String::as_str), &output)?;
        if output.is_success() { Err(format!("{state} was used")) } else { Ok(()) }
    };
    check("foreign")?;
    // In a directory that every user can write in, the attacker comes first.
    fs::create_dir(scene.path("common")).unwrap();
    fs::set_permissions(scene.path("common"), Permissions::from_mode(0o777)).unwrap();
    scene.link(scene.path("safe"), &format!("common/{name}"));
    check("common")?;
    fs::remove_file(scene.path("common").join(&name)).unwrap();
    fs::create_dir_all(scene.path("common").join(&name).join("runners")).unwrap();
    scene.give(&format!("common/{name}"));
    scene.give(&format!("common/{name}/runners"));
    scene.link(scene.path("safe/plain"), &format!("common/{name}/runners/.probe"));
    check("common")
}

fn settings_of_another_user() -> Result<(), String> {
    let scene = Scene::new();
    let refuses = |what: &str, args: &[&str]| {
        let output = scene.run(args);
        if output.is_success() { Err(format!("{what} was used by {args:?}")) } else { Ok(()) }
    };
    scene.give("agent.toml");
    refuses("agent.toml of another user", &["verify"])?;
    scene.take("agent.toml");
    fs::set_permissions(scene.path("agent.toml"), Permissions::from_mode(0o666)).unwrap();
    refuses("agent.toml that all users can write", &["verify"])?;
    fs::set_permissions(scene.path("agent.toml"), Permissions::from_mode(0o644)).unwrap();
    scene.run(&["verify"]).exits(0);
    let (url, token) = (scene.gitlab.url(), scene.path("token"));
    let template = scene.write("template.toml", "[[runners]]\nexecutor = \"shell\"\n");
    let register = |name: &'static str| {
        let token = token.to_str().unwrap();
        let template = template.to_str().unwrap();
        ["register", "--url", &url, "--registration-token-file", token, "--template-config", template, "--name", name]
            .map(str::to_owned)
    };
    let refuses_to_register = |what: &str, name| refuses(what, &register(name).each_ref().map(String::as_str));
    for name in ["token", "template.toml"] {
        scene.give(name);
        refuses_to_register(&format!("{name} of another user"), "a")?;
        scene.take(name);
        fs::set_permissions(scene.path(name), Permissions::from_mode(0o620)).unwrap();
        refuses_to_register(&format!("{name} that others can write"), "b")?;
        fs::set_permissions(scene.path(name), Permissions::from_mode(0o600)).unwrap();
    }
    scene.run(&register("c").each_ref().map(String::as_str)).exits(0);
    Ok(())
}

/// Owner, a user 1501 who may read, group, mask, others: as `setfacl -m u:1501:r` writes it.
fn acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, user) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, 1501), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(rights.to_le_bytes());
        acl.extend(user.to_le_bytes());
    }
    acl
}

fn attributes_lost() -> Result<(), String> {
    let scene = Scene::new();
    let config = scene.path("config/config.toml");
    let mut attributes = vec![
        ("user.note", b"kept".to_vec()),
        ("system.posix_acl_access", acl()),
        ("security.selinux", b"system_u:object_r:etc_t:s0\0".to_vec()),
    ];
    attributes.retain(|(name, value)| {
        let is_set = fsetxattr(File::open(&config).unwrap(), *name, value, XattrFlags::empty()).is_ok();
        if !is_set {
            println!("  the file system has no {name}");
        }
        is_set
    });
    let before = fs::metadata(&config).unwrap();
    scene.run(&["rotate", "--all"]).exits(0);
    let after = fs::metadata(&config).unwrap();
    if before.ino() == after.ino() {
        return Err("config.toml was not replaced".to_owned());
    }
    if (before.mode(), before.uid(), before.gid()) != (after.mode(), after.uid(), after.gid()) {
        return Err(format!("the mode {:o} became {:o}, or the owner has changed", before.mode(), after.mode()));
    }
    for (name, value) in &attributes {
        let mut found = vec![0; 1000];
        let length = fgetxattr(File::open(&config).unwrap(), *name, &mut found[..]).unwrap_or(0);
        if found[..length] != value[..] {
            return Err(format!("{name} was lost"));
        }
    }
    Ok(())
}

/// A file or directory with an attribute of `chattr`, which is taken away on drop.
struct Fixed(PathBuf);

impl Fixed {
    fn new(path: PathBuf, flag: &str) -> Option<Self> {
        let set = Command::new("chattr").arg(format!("+{flag}")).arg(&path).status();
        set.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        let _removed = Command::new("chattr").arg("-ia").arg(&self.0).status();
    }
}

fn immutable_found_too_late() -> Result<(), String> {
    for (name, flag) in [("config/config.toml", "i"), ("config/config.toml", "a"), ("config", "i"), ("config", "a")] {
        let scene = Scene::new();
        // The sidecar can be made.
        scene.run(&["rotate", "--all"]).exits(0);
        let Some(_fixed) = Fixed::new(scene.path(name), flag) else {
            println!("  the file system has no attributes");
            return Ok(());
        };
        scene.gitlab.clear_requests();
        let (url, token) = (scene.gitlab.url(), scene.path("token"));
        for args in [
            &["rotate", "--all"][..],
            &["register", "--url", &url, "--registration-token-file", token.to_str().unwrap(), "--name", "new"],
        ] {
            let output = scene.run(args);
            let spent =
                scene.gitlab.requests_to(Endpoint::Reset).len() + scene.gitlab.requests_to(Endpoint::Register).len();
            if output.is_success() || spent > 0 {
                return Err(format!("{args:?} with +{flag} on {name} sent {spent} requests: {}", output.text()));
            }
        }
    }
    Ok(())
}
