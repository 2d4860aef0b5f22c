//! `relocate`: a GitLab with a new address.

use super::sandbox_with;
use fake_gitlab::{Endpoint, Gitlab};
use rustix::process::Signal;
use serde_json::Value;
use test_support::Sandbox;

/// The addresses of the fake GitLab: the one that the sandbox uses, and another one.
fn addresses(sandbox: &Sandbox) -> (String, String) {
    let old = sandbox.gitlab.url();
    (old.clone(), old.replace("127.0.0.1", "localhost"))
}

/// A registered runner whose entry a person has given the new address; its id.
fn registered_and_moved(sandbox: &Sandbox) -> u64 {
    sandbox.register(&["--name", "docker"]).exits(0);
    let (old, new) = addresses(sandbox);
    let id = sandbox.run(&["list", "-o", "json"]).exits(0).runner()["id"].as_u64().unwrap();
    sandbox.write_config(&sandbox.config().replace(&old, &new));
    id
}

/// The records in the state directory.
fn records(sandbox: &Sandbox) -> Vec<Value> {
    let state = sandbox.path("state");
    let files =
        std::fs::read_dir(state).unwrap().flat_map(|entry| std::fs::read_dir(entry.unwrap().path().join("runners")));
    let files = files.flatten().map(|entry| entry.unwrap().path());
    let records = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    records.map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).collect()
}

#[test]
fn a_record_follows_its_entry_to_the_new_address_and_keeps_how_the_runner_was_made() {
    let sandbox = super::sandbox();
    let id = registered_and_moved(&sandbox);
    let (old, new) = addresses(&sandbox);
    let done = sandbox.run(&["relocate", &old, &new]);
    assert_eq!(done.exits(0).stdout, format!("runner `docker` (id {id}): accepted at {new}, does not expire\n"));
    let [record] = &records(&sandbox)[..] else { panic!("{:?}", records(&sandbox)) };
    assert_eq!((&record["url"], &record["origin"]), (&new.as_str().into(), &"registered".into()));
    // The runner that this machine has registered is deleted, not only its manager.
    sandbox.run(&["unregister", "--name", "docker"]).exits(0);
    assert!(sandbox.gitlab.runner(id).is_none());
}

#[test]
fn the_daemon_names_the_command_once_for_all_runners_and_takes_the_moved_records_up() {
    let sandbox = super::sandbox();
    let (old, new) = addresses(&sandbox);
    for name in ["a", "b", "c", "d"] {
        sandbox.register(&["--name", name]).exits(0);
    }
    sandbox.write_config(&sandbox.config().replace(&old, &new));
    let daemon = sandbox.start_serving();
    sandbox.wait("the first verifications", |_| daemon.log().contains("config.toml names"));
    let command = format!("run `runner-agent relocate {old} {new}`");
    assert_eq!(daemon.log().matches(&command).count(), 1, "{}", daemon.log());
    assert!(daemon.log().contains("for 4 runners recorded at"), "{}", daemon.log());
    // The daemon may have made records of the entries by now.
    sandbox.run(&["status", "--wait", "ready", "--timeout", "60s"]).exits(0);
    sandbox.run(&["relocate", &old, &new]).exits(0);
    let records = records(&sandbox);
    assert_eq!(records.len(), 4, "{records:?}");
    assert!(records.iter().all(|record| record["url"] == new.as_str() && record["origin"] == "registered"));
    let status = sandbox.run(&["status", "-o", "json"]);
    assert!(status.exits(0).runners().iter().all(|runner| runner["state"] == "active"), "{status:?}");
    assert_eq!(status.runners().len(), 4);
    // A runner that this machine has registered is not rotated as a last resort only, as a found one is.
    assert!(status.runners().iter().all(|runner| runner["rotation"]["rule"] == "share_of_life"), "{status:?}");
    let log = daemon.stop(Signal::TERM).stderr;
    assert!(!log.contains("no longer in config.toml"), "{log}");
}

#[test]
fn a_token_that_the_daemon_has_replaced_at_the_new_address_stays() {
    let sandbox = sandbox_with(Gitlab::builder().token_life("1h"));
    let id = registered_and_moved(&sandbox);
    let (old, new) = addresses(&sandbox);
    let old_token = sandbox.gitlab.runner(id).unwrap().token;
    sandbox.run(&["rotate", "--name", "docker"]).exits(0);
    let token = sandbox.gitlab.runner(id).unwrap().token;
    assert_eq!(records(&sandbox).len(), 2);
    let files_with_old = || sandbox.files_with(&old_token).into_iter().filter(|file| !file.ends_with("config.toml"));
    sandbox.run(&["relocate", &old, &new]).exits(0);
    let [record] = &records(&sandbox)[..] else { panic!("{:?}", records(&sandbox)) };
    assert_eq!(record["origin"], "registered");
    assert_eq!(record["retired_digests"].as_array().unwrap().len(), 1);
    // The former token is kept once, beside the record that is left.
    let kept: Vec<_> = files_with_old().collect();
    let key = record["key"].as_str().unwrap();
    assert!(kept.len() == 1 && kept[0].contains(key), "{kept:?} {key}");
    assert!(sandbox.config().contains(&token));
    sandbox.run(&["verify", "--name", "docker"]).exits(0);
    sandbox.run(&["rotate", "--name", "docker"]).exits(0);
}

#[test]
fn an_enrollment_keeps_its_runner_at_the_new_address() {
    // Before the records are relocated, the daemon may have taken up the entry for the enrollment.
    for has_run in [false, true] {
        let sandbox = super::sandbox();
        let (old, new) = addresses(&sandbox);
        sandbox.write("registration-token", &sandbox.gitlab.instance_registration_token());
        let settings = sandbox.enrollment("docker", "registration_token = { file = \"registration-token\" }");
        sandbox.write_fast_settings(&settings);
        sandbox.run(&["run", "--once"]).exits(0);
        sandbox.write_config(&sandbox.config().replace(&old, &new));
        // Still named at the former address, it would register anew there.
        let done = sandbox.run(&["relocate", &old, &new]);
        done.exits(4).says("agent.toml still names").says(&format!("write url = \"{new}\" there first"));
        sandbox.write_fast_settings(&settings.replace(&old, &new));
        if has_run {
            let once = sandbox.run(&["run", "--once"]);
            assert!(
                !once.exits(0).says(&format!("relocate {old} {new}")).stderr.contains("stays registered"),
                "{once:?}"
            );
        }
        sandbox.run(&["relocate", &old, &new]).exits(0);
        let once = sandbox.run(&["run", "--once"]);
        assert!(!once.exits(0).stderr.contains("relocate"), "{once:?}");
        let [record] = &records(&sandbox)[..] else { panic!("{:?}", records(&sandbox)) };
        assert_eq!((&record["url"], &record["origin"]), (&new.as_str().into(), &"registered".into()));
        assert_eq!(record["enrollment"], record["key"]);
        assert_eq!(sandbox.gitlab.requests_to(Endpoint::Register).len(), 1);
    }
}

#[test]
fn nothing_changes_where_the_new_address_is_not_that_gitlab() {
    let sandbox = super::sandbox();
    let other = super::sandbox();
    registered_and_moved(&sandbox);
    let (old, new) = addresses(&sandbox);
    let (there, _) = addresses(&other);
    // The server there refuses the token.
    sandbox.write_config(&sandbox.config().replace(&new, &there));
    let before = records(&sandbox);
    sandbox.run(&["relocate", &old, &there]).exits(3).says("the server refuses the runner's token");
    // The server there does not answer.
    drop(other);
    sandbox.run(&["relocate", &old, &there]).exits(5);
    // config.toml still names the former address.
    sandbox.write_config(&sandbox.config().replace(&there, &old));
    sandbox.run(&["relocate", &old, &new]).exits(4).says("of config.toml still names").says("write url = ");
    assert_eq!(records(&sandbox), before);
    sandbox.run(&["relocate", &new, &there]).exits(2).says("no runner of this machine is recorded at").says(&old);
    sandbox.run(&["relocate", &old, &old]).exits(2).says("both addresses are");
}

#[test]
fn a_record_stays_where_the_entry_at_the_new_address_has_the_token_of_another_runner() {
    let sandbox = super::sandbox();
    let id = registered_and_moved(&sandbox);
    let (old, new) = addresses(&sandbox);
    let own = sandbox.gitlab.runner(id).unwrap().token;
    let (other, token) = sandbox.gitlab.add_runner(fake_gitlab::NewRunner::instance());
    sandbox.write_config(&sandbox.config().replace(&own, &token));
    let before = records(&sandbox);
    let done = sandbox.run(&["relocate", &old, &new]);
    done.exits(4).says(&format!("the token in its entry is that of runner {other} at {new}"));
    assert_eq!(records(&sandbox), before);
}

#[test]
fn relocating_can_be_taken_back() {
    let sandbox = super::sandbox();
    registered_and_moved(&sandbox);
    let (old, new) = addresses(&sandbox);
    sandbox.run(&["relocate", &old, &new]).exits(0);
    // It can be repeated.
    sandbox.run(&["relocate", &old, &new]).exits(0).says("nothing to do: no runner is recorded at").says("and 1 at");
    sandbox.write_config(&sandbox.config().replace(&new, &old));
    sandbox.run(&["relocate", &new, &old]).exits(0);
    let [record] = &records(&sandbox)[..] else { panic!("{:?}", records(&sandbox)) };
    assert_eq!((&record["url"], &record["origin"]), (&old.as_str().into(), &"registered".into()));
}
