//! The examples in the man pages: for each page, purposes and command lines.

/// The examples of a page, such as `runner-agent-verify`.
pub(super) fn of(page: &str) -> &'static [(&'static str, &'static str)] {
    EXAMPLES.iter().find(|(name, _)| *name == page).map_or(&[], |(_, examples)| *examples)
}

/// The pages that have examples.
#[cfg(test)]
pub(super) fn pages() -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().map(|(name, _)| *name)
}

/// A purpose, and a command line for it.
type Example = (&'static str, &'static str);

const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "runner-agent",
        &[
            ("Run the daemon", "runner-agent run"),
            ("Show what it would do", "runner-agent plan"),
            ("Wait until all runners are ready", "runner-agent status --wait ready"),
        ],
    ),
    (
        "runner-agent-run",
        &[
            (
                "Run the daemon, with its status and metrics on a port",
                "runner-agent run --listen-address 127.0.0.1:9252",
            ),
            ("Enroll, verify and rotate what is due, and exit", "runner-agent run --once"),
        ],
    ),
    (
        "runner-agent-init",
        &[
            ("Answer questions on a terminal", "runner-agent init"),
            (
                "Let the agent create a runner of a group",
                "runner-agent init --url https://gitlab.example.com --access-token-file access-token --group 7",
            ),
            ("Serve the runners that config.toml has already", "runner-agent init --from-config"),
        ],
    ),
    ("runner-agent-version", &[("Name the build in a bug report", "runner-agent version")]),
    (
        "runner-agent-register",
        &[
            (
                "Write the entry of a runner that was created in GitLab",
                "runner-agent register --non-interactive --url https://gitlab.example.com --token-file runner-token --name build-1 --executor shell",
            ),
            (
                "Register a runner at boot, before the network is up",
                "runner-agent register --non-interactive --wait 5m --url https://gitlab.example.com --registration-token-file registration-token --name build-1",
            ),
        ],
    ),
    (
        "runner-agent-verify",
        &[
            ("Verify all tokens", "runner-agent verify"),
            ("Remove the entry of a runner whose token GitLab refuses", "runner-agent verify --name build-1 --delete"),
        ],
    ),
    (
        "runner-agent-rotate",
        &[
            ("Replace the token of one runner", "runner-agent rotate --name build-1"),
            (
                "Replace a token that GitLab refuses already",
                "runner-agent rotate --name build-1 --pat-file access-token --id 42",
            ),
        ],
    ),
    (
        "runner-agent-unregister",
        &[
            ("Unregister one runner", "runner-agent unregister --name build-1"),
            ("Unregister all runners without a question", "runner-agent unregister --all-runners --yes"),
        ],
    ),
    (
        "runner-agent-list",
        &[
            ("List the runners", "runner-agent list"),
            ("List those of another file, for a script", "runner-agent list --config config.toml --output json"),
        ],
    ),
    (
        "runner-agent-plan",
        &[
            ("Show the next steps without contacting a server", "runner-agent plan"),
            ("Verify the tokens first", "runner-agent plan --verify"),
        ],
    ),
    (
        "runner-agent-check",
        &[
            ("Find mistakes in all files", "runner-agent check"),
            ("The same, for a script", "runner-agent check --output json"),
        ],
    ),
    (
        "runner-agent-doctor",
        &[
            ("Check files, servers, tokens and the daemon", "runner-agent doctor"),
            ("Write a file for a bug report", "runner-agent doctor --bundle report.json"),
        ],
    ),
    (
        "runner-agent-init",
        &[
            ("Answer questions", "runner-agent init"),
            ("Serve the runners that config.toml has already", "runner-agent init --from-config"),
        ],
    ),
    ("runner-agent-version", &[("Show version, commit, target and features", "runner-agent version")]),
    (
        "runner-agent-reload",
        &[
            ("Let the daemon read its files again", "runner-agent reload"),
            ("Wait longer for the result", "runner-agent reload --timeout 90s"),
        ],
    ),
    (
        "runner-agent-open",
        &[
            ("Look at the runners in a browser", "runner-agent open"),
            ("Open the page of a daemon with a socket of its own", "runner-agent open --socket /run/other/agent.sock"),
        ],
    ),
    (
        "runner-agent-relocate",
        &[(
            "GitLab has a new address, which config.toml has already",
            "runner-agent relocate https://git.example.com https://gitlab.example.com",
        )],
    ),
    (
        "runner-agent-status",
        &[
            ("Show the runners of the daemon", "runner-agent status"),
            ("Wait until all are ready", "runner-agent status --wait ready --timeout 5m"),
        ],
    ),
    ("runner-agent-doctor", &[("Find out why a runner is not ready", "runner-agent doctor")]),
    (
        "runner-agent-health",
        &[
            ("Check that the daemon makes progress", "runner-agent health"),
            ("Check that all runners are ready", "runner-agent health --ready"),
        ],
    ),
    (
        "runner-agent-completions",
        &[
            (
                "Install the completions of bash for one user",
                "runner-agent completions bash > ~/.local/share/bash-completion/completions/runner-agent",
            ),
            ("Install those of fish", "runner-agent completions fish > ~/.config/fish/completions/runner-agent.fish"),
        ],
    ),
    (
        "runner-agent-fleet",
        &[
            (
                "List the runners that you manage, with the access token in a file",
                "runner-agent fleet list --url https://gitlab.example.com --access-token-file access-token",
            ),
            ("Show the runners that a command would change", "runner-agent fleet pause --tag docker --dry-run"),
        ],
    ),
    (
        "runner-agent-fleet-list",
        &[
            (
                "List the runners of the instance that never contacted it",
                "runner-agent fleet list --all --status never_contacted",
            ),
            (
                "List them for a script, one per line",
                "runner-agent fleet list --all --type instance_type --output jsonl",
            ),
        ],
    ),
    ("runner-agent-fleet-show", &[("Show a runner", "runner-agent fleet show 42")]),
    (
        "runner-agent-fleet-update",
        &[("Change the description of a runner", "runner-agent fleet update 42 --description 'rack-7'")],
    ),
    (
        "runner-agent-fleet-pause",
        &[("Pause all runners with a tag", "runner-agent fleet pause --all --tag docker --yes")],
    ),
    ("runner-agent-fleet-resume", &[("Resume them", "runner-agent fleet resume --all --tag docker --yes")]),
    (
        "runner-agent-fleet-jobs",
        &[("List the running jobs of a runner", "runner-agent fleet jobs 42 --status running")],
    ),
    ("runner-agent-fleet-managers", &[("List the machines that use a runner", "runner-agent fleet managers 42")]),
    ("runner-agent-fleet-projects", &[("List the projects of a runner", "runner-agent fleet projects 42")]),
    (
        "runner-agent-fleet-assign",
        &[("Assign a project runner to another project", "runner-agent fleet assign 42 --to group/project")],
    ),
    (
        "runner-agent-fleet-unassign",
        &[("Take a project runner from a project", "runner-agent fleet unassign 42 --from group/project")],
    ),
    ("runner-agent-fleet-delete", &[("Show what would be deleted", "runner-agent fleet delete 42 43 --dry-run")]),
    (
        "runner-agent-fleet-create",
        &[
            (
                "Create a runner and write its token to a new file",
                "runner-agent fleet create --instance --description build-9 --write-token build-9-token",
            ),
            (
                "Create a runner and write its entry",
                "runner-agent fleet create --enroll --instance --name build-10 --executor shell",
            ),
        ],
    ),
    (
        "runner-agent-fleet-prune",
        &[("Show the runners without a contact for 30 days", "runner-agent fleet prune --all --stale 30d --dry-run")],
    ),
    (
        "runner-agent-fleet-reset-token",
        &[("Reset the token of a runner", "runner-agent fleet reset-token 42 --write-token build-9-token")],
    ),
    (
        "runner-agent-fleet-reset-registration-token",
        &[(
            "Reset the registration token of a project",
            "runner-agent fleet reset-registration-token --project group/project --write-token registration-token",
        )],
    ),
    (
        "runner-agent-access-token",
        &[
            ("Show the access tokens of agent.toml", "runner-agent access-token show"),
            ("Rotate one that is due, from a timer", "runner-agent access-token rotate --if-due"),
        ],
    ),
    ("runner-agent-hook", &[("Run a hook once, now", "runner-agent hook test chat")]),
    (
        "runner-agent-hook-test",
        &[
            ("Run a hook once, now", "runner-agent hook test chat"),
            (
                "For one of several runners, and another event",
                "runner-agent hook test vault --runner build-2 --event rotated",
            ),
        ],
    ),
    (
        "runner-agent-access-token-show",
        &[
            ("Show the access tokens of agent.toml", "runner-agent access-token show"),
            (
                "Show one from another program",
                "runner-agent access-token show https://gitlab.example.com --access-token-file -",
            ),
        ],
    ),
    (
        "runner-agent-access-token-rotate",
        &[
            ("Rotate the access token of agent.toml now", "runner-agent access-token rotate"),
            (
                "Keep a token that agent.toml does not name, from a timer",
                "runner-agent access-token rotate --if-due --wait 15m --url https://gitlab.example.com --access-token-file /var/lib/deploy/token",
            ),
            ("Let another program have a copy", "runner-agent access-token rotate --write /etc/exporter/gitlab-token"),
        ],
    ),
    ("runner-agent-shared", &[("List the shared runners", "runner-agent shared list")]),
    ("runner-agent-shared-list", &[("List the shared runners", "runner-agent shared list")]),
    ("runner-agent-shared-show", &[("Show the machines that share a runner", "runner-agent shared show docker-fleet")]),
    (
        "runner-agent-shared-heal",
        &[("Reset the token of a runner that no machine knows", "runner-agent shared heal docker-fleet")],
    ),
    (
        "runner-agent-shared-forget",
        &[("Remove a machine that is gone", "runner-agent shared forget docker-fleet --member s_0123456789ab")],
    ),
];
