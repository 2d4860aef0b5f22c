//! Completions, in the shells that use them.

use std::path::Path;
use std::process::Command;

use test_support::{Process, Sandbox};

use crate::BINARY;

/// Names that a shell would change if it evaluated them.
const CONFIG: &str = r#"
[[runners]]
name = "build-1"
url = "https://gitlab.example.com"
token = "glrt-a"

[[runners]]
name = "build $(touch evaluated) `touch evaluated`"
url = "https://gitlab.example.com"
token = "glrt-b"

[[runners]]
name = "other"
url = "https://gitlab.example.com"
token = "glrt-c"
"#;

#[test]
fn completions_contain_every_command() {
    let sandbox = sandbox();
    for shell in ["bash", "zsh", "fish"] {
        let done = sandbox.run(&["completions", shell]);
        done.exits(0);
        for command in [
            "register",
            "verify",
            "rotate",
            "reset-token",
            "unregister",
            "list",
            "plan",
            "check",
            "doctor",
            "init",
            "reload",
            "open",
            "status",
            "health",
            "shared",
            "completions",
        ] {
            assert!(done.stdout.contains(command), "{shell} {command}");
        }
    }
    sandbox.run(&["completions", "tcsh"]).exits(2);
}

#[test]
fn bash_completes_names_executors_files_and_commands() {
    let sandbox = sandbox();
    sandbox.write("other.toml", "[[runners]]\nname = \"elsewhere\"\nurl = \"https://x\"\ntoken = \"glrt-d\"\n");
    sandbox.write("token-file", "");
    for (words, expected) in [
        ("verify --name build-", "build-1\n"),
        ("rotate -n o", "other\n"),
        ("reset-token --name o", "other\n"),
        ("unregister --name x", "\n"),
        ("--config other.toml verify --name ''", "elsewhere\n"),
        ("verify build-", "build-1\n"),
        ("rotate --force o", "other\n"),
        ("reset-token o", "other\n"),
        ("-c other.toml unregister ''", "elsewhere\n"),
        ("unregister --tls-ca", "--tls-ca-file\n"),
        ("verify RUNNER_", "\n"),
        ("verify -c other.toml --name e", "elsewhere\n"),
        ("register --executor docker-", "docker-windows\ndocker-autoscaler\n"),
        ("fleet create --executor k", "kubernetes\n"),
        ("register --token-file token-", "token-file\n"),
        ("uni", "\n"),
        ("unr", "unregister\n"),
        ("man", "\n"),
        ("na", "\n"),
        ("fleet pru", "prune\n"),
        ("status --wai", "--wait\n"),
    ] {
        assert_eq!(in_bash(&sandbox, words), expected, "{words}");
    }
}

#[test]
fn bash_quotes_a_name_and_never_evaluates_it() {
    let sandbox = sandbox();
    let names = in_bash(&sandbox, "verify --name b");
    assert_eq!(names, "build-1\nbuild\\ \\$\\(touch\\ evaluated\\)\\ \\`touch\\ evaluated\\`\n");
    assert!(!sandbox.path("evaluated").exists());
}

#[test]
fn fish_completes_names_and_executors() {
    let Some(fish) = shell("fish") else { return };
    let sandbox = sandbox();
    let complete = |line: &str| {
        let script = format!("runner-agent completions fish | source; complete --do-complete '{line}'");
        let output = in_shell(&sandbox, &fish, &["--no-config", "-c", &script]);
        // A description follows after a tab.
        output.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for line in ["verify --name o", "verify o", "rotate --force o", "reset-token o", "unregister o"] {
        assert_eq!(complete(&format!("runner-agent {line}")), ["other"], "{line}");
    }
    assert_eq!(complete("runner-agent register --executor kub"), ["kubernetes"]);
    assert!(complete("runner-agent manu").is_empty());
    complete("runner-agent verify --name b");
    assert!(!sandbox.path("evaluated").exists());
}

#[test]
fn zsh_accepts_the_script() {
    let Some(zsh) = shell("zsh") else { return };
    let sandbox = sandbox();
    let script = "autoload -Uz compinit && compinit -u -D && eval \"$(runner-agent completions zsh)\" &&
        functions -- _runner_agent_names _runner-agent >/dev/null && echo defined";
    assert_eq!(in_shell(&sandbox, &zsh, &["-f", "-c", script]), "defined\n");
}

fn sandbox() -> Sandbox {
    let sandbox = super::sandbox();
    sandbox.write_config(CONFIG);
    sandbox
}

/// The completions of the last word of a command line in bash.
fn in_bash(sandbox: &Sandbox, words: &str) -> String {
    let script = format!(
        r#"eval "$(runner-agent completions bash)"
        COMP_WORDS=(runner-agent {words})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _runner__agent runner-agent "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
        printf '%s\n' "${{COMPREPLY[@]}}""#
    );
    in_shell(sandbox, "/bin/bash", &["--norc", "-c", &script])
}

/// The stdout of a shell in the sandbox, which has to succeed.
#[track_caller]
fn in_shell(sandbox: &Sandbox, shell: &str, args: &[&str]) -> String {
    let mut command = sandbox.shell(r#"shell=$1; shift; exec "$shell" "$@""#, &[&[shell], args].concat());
    command.env("PATH", format!("{}:/usr/bin:/bin", Path::new(BINARY).parent().unwrap().display()));
    let output = Process::start(command).end();
    assert!(output.is_success(), "{output:#?}");
    output.stdout
}

/// The path of a shell; `None` if it is not installed.
fn shell(name: &str) -> Option<String> {
    let found = Command::new("/bin/sh").args(["-c", "command -v \"$0\"", name]).output().unwrap();
    found.status.success().then(|| String::from_utf8(found.stdout).unwrap().trim().to_owned())
}
