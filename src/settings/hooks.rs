//! Reads the `[[hook]]` tables: what is run after an event.

use std::path::{Path, PathBuf};

use super::diagnostics::{Diagnostics, Placed};
use super::secret_source::source;
use super::table::TableReader;
use super::variables::proxies;
use super::{Environment, Paths};
use crate::hooks::{
    Action, CommandAction, FileOwner, Hook, SignalAction, SignalName, SignalTarget, TIMEOUT, TokenInput, WebhookAction,
    WriteTokenAction,
};
use crate::model::HookKind;

const TOKEN: [(&str, TokenInput); 3] =
    [("stdin", TokenInput::Stdin), ("fd:3", TokenInput::Descriptor), ("file", TokenInput::File)];

/// The keys of what is done, of which a hook has one.
const ACTIONS: [&str; 4] = ["command", "webhook", "write_token", "signal"];

/// The default mode of a file with a token.
const PRIVATE: u32 = 0o600;

/// The longest name: it is a label of a metric.
const MAX_NAME_CHARS: usize = 64;

/// Reads all `[[hook]]` tables.
pub(super) fn hooks(
    root: &mut TableReader<'_>,
    paths: &Paths,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    for table in root.tables("hook", diagnostics) {
        let place = table.place().clone();
        let Some(hook) = hook(table, environment, diagnostics) else { continue };
        if hooks.iter().any(|known| known.name == hook.name) {
            diagnostics.add(&place, format!("two [[hook]] tables have the name `{}`: rename one", hook.name));
        }
        if let Some(obstacle) = hook.written_file().and_then(|path| owner_of_path(path, paths, &hooks)) {
            diagnostics.add(&place, format!("`write_token` would replace {obstacle}: name a file of its own"));
        }
        hooks.push(hook);
    }
    hooks
}

/// What a file that a hook is to write is already.
fn owner_of_path(path: &Path, paths: &Paths, hooks: &[Hook]) -> Option<String> {
    let is_in_state = paths.state_root.as_ref().is_some_and(|root| path.starts_with(root));
    let other = hooks.iter().find(|hook| hook.written_file() == Some(path));
    if path == paths.config {
        Some("config.toml".to_owned())
    } else if path == paths.agent_config {
        Some("agent.toml".to_owned())
    } else if is_in_state {
        Some("a file in the state directory".to_owned())
    } else {
        other.map(|hook| format!("the file of the hook `{}`", hook.name))
    }
}

fn hook(mut table: TableReader<'_>, environment: &Environment, diagnostics: &mut Diagnostics) -> Option<Hook> {
    let before = diagnostics.len();
    let place = table.place().clone();
    if table.place_of("name").is_none() {
        diagnostics.add(&place, "[[hook]] needs `name`");
    }
    let name = name(&mut table, diagnostics);
    let on = on(&mut table, diagnostics);
    let runners = table.list("runner", diagnostics);
    let given: Vec<_> = ACTIONS.into_iter().filter_map(|key| Some((key, table.place_of(key)?))).collect();
    match &given[..] {
        [_] => {}
        [] => diagnostics.add(&place, format!("[[hook]] needs one of {}", listed(&ACTIONS))),
        [.., (key, place)] => {
            diagnostics.add(place, format!("a hook does one thing: put `{key}` into a [[hook]] of its own"));
        }
    }
    let action = action(&mut table, environment, diagnostics);
    let timeout = table.nonzero_span("timeout", diagnostics);
    let retries = table.number("retries", diagnostics);
    table.finish(diagnostics);
    if diagnostics.len() > before {
        return None;
    }
    let action = action?;
    let hook = Hook {
        name: name?,
        on: Vec::new(),
        runners: runners.map(|runners| runners.value).unwrap_or_default(),
        timeout: timeout.map_or(TIMEOUT, |timeout| timeout.value),
        retries: retries.map_or(action.default_retries(), |retries| retries.value),
        action,
    };
    if matches!(hook.action, Action::WriteToken(_)) && hook.runners.len() != 1 {
        diagnostics.add(&place, "a hook with `write_token` needs `runner` with one name: a file holds one token");
    }
    let on = events(&hook, on, diagnostics);
    Some(Hook { on, ..hook })
}

fn name(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<String> {
    let name = table.text("name", diagnostics)?;
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    if name.value.is_empty() || name.value.len() > MAX_NAME_CHARS || !name.value.chars().all(is_plain) {
        let message = format!("`name` must have 1 to {MAX_NAME_CHARS} of the characters A-Z a-z 0-9 . _ -");
        diagnostics.add(&name.place, message);
        return None;
    }
    Some(name.value)
}

fn on(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<Placed<Vec<HookKind>>> {
    let given = table.list("on", diagnostics)?;
    let mut kinds = Vec::new();
    for name in &given.value {
        match HookKind::from_name(name) {
            Some(kind) if kinds.contains(&kind) => {}
            Some(kind) => kinds.push(kind),
            None => {
                let known: Vec<_> = HookKind::ALL.iter().map(|kind| kind.as_str()).collect();
                diagnostics.add(&given.place, format!("`on`: `{name}` is none of {}", known.join(", ")));
            }
        }
    }
    if given.value.is_empty() {
        diagnostics
            .add(&given.place, "`on` is empty, so the hook would never run: name events, or remove `on` for all");
    }
    Some(Placed::new(kinds, given.place))
}

/// The events of a hook: those that were given, or else all that it can be for.
fn events(hook: &Hook, on: Option<Placed<Vec<HookKind>>>, diagnostics: &mut Diagnostics) -> Vec<HookKind> {
    let Some(on) = on else {
        return HookKind::ALL.iter().copied().filter(|kind| hook.is_for_by_default(*kind)).collect();
    };
    for kind in on.value.iter().filter(|kind| !hook.can_be_for(**kind)) {
        diagnostics
            .add(&on.place, format!("`on`: after `{kind}` there is no token that the hook could get, or no new one"));
    }
    on.value
}

/// Reads what is done. All keys are read, so that mistakes in any of them are reported.
fn action(table: &mut TableReader<'_>, environment: &Environment, diagnostics: &mut Diagnostics) -> Option<Action> {
    for (key, needed) in [("token", "command"), ("secret", "webhook"), ("tls_ca_file", "webhook")] {
        if let (Some(place), None) = (table.place_of(key), table.place_of(needed)) {
            diagnostics.add(&place, format!("`{key}` is for a `{needed}`"));
        }
    }
    let token = table.one_of("token", &TOKEN, diagnostics).map_or(TokenInput::None, |token| token.value);
    let command = command(table, diagnostics);
    let url = table.parsed("webhook", diagnostics);
    let secret = source(table, "secret", environment, diagnostics).map(|secret| secret.value);
    let ca_file = table.path("tls_ca_file", diagnostics).map(|path| path.value);
    let write_token = write_token(table, diagnostics);
    let signal = signal(table, diagnostics);
    let command = command.map(|(program, arguments)| Action::Command(CommandAction { program, arguments, token }));
    let webhook = url.map(|url| {
        let proxies = proxies(environment);
        Action::Webhook(WebhookAction { url: url.value, secret, ca_file, proxies })
    });
    command.or(webhook).or(write_token.map(Action::WriteToken)).or(signal.map(Action::Signal))
}

fn write_token(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<WriteTokenAction> {
    let expected = "a table such as { path = \"/run/my-runner/token\", mode = \"0640\", owner = \"root:ci\" }";
    let mut table = table.table("write_token", expected, diagnostics)?;
    let before = diagnostics.len();
    let path = table.path("path", diagnostics);
    let mode = table.text("mode", diagnostics);
    let owner = table.text("owner", diagnostics);
    let place = table.place().clone();
    table.finish(diagnostics);
    if path.is_none() && diagnostics.len() == before {
        diagnostics.add(&place, "`write_token` needs `path`");
    }
    let mode = match mode {
        None => PRIVATE,
        Some(mode) => mode_of(&mode.value).unwrap_or_else(|| {
            let message = "`mode` must be permission bits that only the owner may write by, such as \"0640\"";
            diagnostics.add(&mode.place, message);
            PRIVATE
        }),
    };
    let owner = owner.and_then(|owner| {
        let owned = owner_of(&owner.value);
        if owned.is_none() {
            diagnostics.add(&owner.place, "`owner` must be a user, or USER:GROUP, by name or number");
        }
        owned
    });
    Some(WriteTokenAction { path: path?.value, mode, owner })
}

/// Permission bits in octal digits. Nobody but the owner may write, and nobody may execute.
fn mode_of(text: &str) -> Option<u32> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal)?;
    (mode & !0o644 == 0 && mode & 0o400 != 0).then_some(mode)
}

fn owner_of(text: &str) -> Option<FileOwner> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|char| !char.is_whitespace() && char != ':');
    (is_name(user) && group.is_none_or(is_name))
        .then(|| FileOwner { user: user.to_owned(), group: group.map(str::to_owned) })
}

fn signal(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<SignalAction> {
    let expected = "a table such as { unit = \"gitlab-runner.service\", signal = \"HUP\" }";
    let mut table = table.table("signal", expected, diagnostics)?;
    let before = diagnostics.len();
    let pid_file = table.path("pid_file", diagnostics);
    let unit = table.text("unit", diagnostics);
    let names: Vec<_> = SignalName::ALL.iter().map(|name| (name.as_str(), *name)).collect();
    let signal = table.one_of("signal", &names, diagnostics);
    let place = table.place().clone();
    table.finish(diagnostics);
    if let Some(unit) = unit.as_ref().filter(|unit| !is_unit(&unit.value)) {
        diagnostics.add(&unit.place, "`unit` must be the name of a unit, such as \"gitlab-runner.service\"");
    }
    let target = match (pid_file, unit) {
        (Some(path), None) => SignalTarget::PidFile(path.value),
        (None, Some(unit)) => SignalTarget::Unit(unit.value),
        (Some(_), Some(_)) | (None, None) => {
            if diagnostics.len() == before {
                diagnostics.add(&place, "`signal` needs exactly one of `pid_file` and `unit`");
            }
            return None;
        }
    };
    Some(SignalAction { target, signal: signal.map_or(SignalName::Hup, |signal| signal.value) })
}

/// Whether a text can be the name of a unit of systemd.
fn is_unit(text: &str) -> bool {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, ':' | '_' | '.' | '\\' | '@' | '-');
    !text.starts_with('-') && text.len() <= 255 && text.contains('.') && text.chars().all(is_plain)
}

fn command(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<(PathBuf, Vec<String>)> {
    let given = table.array_of_texts("command", diagnostics)?;
    let Some((program, arguments)) = given.value.split_first() else {
        diagnostics.add(&given.place, "`command` is empty: it begins with the absolute path of a program");
        return None;
    };
    if !program.starts_with('/') {
        diagnostics.add(
            &given.place,
            "`command` must begin with the absolute path of a program, as in [\"/usr/bin/logger\", \"rotated\"]",
        );
        return None;
    }
    if given.value.iter().any(|text| text.contains('\0')) {
        diagnostics.add(&given.place, "`command` has the character NUL, which a program cannot get: remove `\\u0000`");
        return None;
    }
    Some((PathBuf::from(program), arguments.to_vec()))
}

fn listed(keys: &[&str]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{diagnostics, loaded, read_text};
    use super::*;

    fn hooks_of(text: &str) -> Vec<Hook> {
        loaded(text).engine.hooks
    }

    #[test]
    fn a_hook_is_for_every_event_and_runner_unless_it_says_so() {
        let hooks = hooks_of("[[hook]]\nname = \"log\"\ncommand = [\"/usr/bin/logger\", \"-t\", \"runner\"]\n");
        let [hook] = &hooks[..] else { panic!("{hooks:?}") };
        assert_eq!((hook.on.as_slice(), hook.runners.len()), (HookKind::ALL, 0));
        assert_eq!((hook.timeout, hook.retries), (TIMEOUT, 10));
        let Action::Command(command) = &hook.action else { panic!("{hook:?}") };
        assert_eq!((command.arguments.len(), command.token), (2, TokenInput::None));
        let hooks = hooks_of(
            "[[hook]]\nname = \"b\"\non = [\"rotated\"]\nrunner = \"a\"\ncommand = [\"/bin/b\"]\ntoken = \"file\"\ntimeout = \"2s\"\nretries = 0\n",
        );
        assert_eq!(
            (hooks[0].on.as_slice(), hooks[0].runners.as_slice()),
            (&[HookKind::Rotated][..], &["a".to_owned()][..])
        );
        assert_eq!((hooks[0].timeout, hooks[0].retries), (Duration::from_secs(2), 0));
    }

    #[test]
    fn a_hook_that_takes_the_token_is_for_events_that_leave_one() {
        let text = "[[hook]]\nname = \"a\"\ncommand = [\"/bin/a\"]\ntoken = \"stdin\"\n";
        assert!(hooks_of(text)[0].on.iter().all(|kind| kind.leaves_token()));
        let errors = diagnostics(&format!("{text}on = [\"rotated\", \"unregistered\"]\n"));
        assert!(errors.contains("agent.toml:5: `on`: after `unregistered` there is no token that"), "{errors}");
    }

    #[test]
    fn all_mistakes_of_hooks_are_reported_at_once() {
        let errors = diagnostics(
            "[[hook]]\non = [\"rotate\"]\n[[hook]]\nname = \"a b\"\ncommand = [\"logger\"]\n[[hook]]\nname = \"c\"\ntoken = \"stdin\"\ncomand = 1\n[[hook]]\nname = \"d\"\ncommand = [\"/a\"]\n[[hook]]\nname = \"d\"\ncommand = [\"/a\"]\n",
        );
        for expected in [
            ":1: [[hook]] needs `name`",
            ":1: [[hook]] needs one of `command`, `webhook`, `write_token`, `signal`",
            ":2: `on`: `rotate` is none of registered, rotated, rejected,",
            ":4: `name` must have 1 to 64",
            ":5: `command` must begin with the absolute path",
            ":8: `token` is for a `command`",
            ":9: unknown key `comand` in [[hook]]",
            ":13: two [[hook]] tables have the name `d`",
        ] {
            assert!(errors.contains(expected), "{expected} in {errors}");
        }
    }

    fn action_of(keys: &str) -> Action {
        hooks_of(&format!("[[hook]]\nname = \"a\"\n{keys}\n")).remove(0).action
    }

    #[test]
    fn a_token_is_written_over_no_file_of_the_agent_or_of_another_hook() {
        let hook = |name: &str, path: &str| {
            format!("[[hook]]\nname = \"{name}\"\nrunner = \"x\"\nwrite_token = {{ path = \"{path}\" }}\n")
        };
        for (path, expected) in [
            ("agent.toml", "would replace agent.toml"),
            ("/etc/gitlab-runner/config.toml", "would replace config.toml"),
            ("/var/lib/runner-agent/x", "would replace a file in the state directory"),
            ("/run/other", "would replace the file of the hook `other`"),
        ] {
            let root = Environment { is_root: true, ..Environment::default() };
            let errors = read_text(&(hook("other", "/run/other") + &hook("a", path)), &root).unwrap_err().to_string();
            assert!(errors.contains(expected), "{path}: {errors}");
        }
    }

    #[test]
    fn each_action_is_read_with_its_defaults() {
        let keys = "runner = [\"a\"]\nwrite_token = { path = \"/run/a/token\" }";
        let Action::WriteToken(write) = action_of(keys) else { panic!("another action") };
        assert_eq!((write.path, write.mode, write.owner), (PathBuf::from("/run/a/token"), 0o600, None));
        let keys = "runner = \"a\"\nwrite_token = { path = \"t\", mode = \"640\", owner = \"ci:12\" }";
        let Action::WriteToken(write) = action_of(keys) else { panic!("another action") };
        let owner = FileOwner { user: "ci".to_owned(), group: Some("12".to_owned()) };
        assert_eq!((write.path, write.mode, write.owner), (PathBuf::from("/etc/x/t"), 0o640, Some(owner)));
        let Action::Signal(signal) = action_of("signal = { unit = \"gitlab-runner.service\" }") else {
            panic!("another action")
        };
        let target = SignalTarget::Unit("gitlab-runner.service".to_owned());
        assert_eq!(signal, SignalAction { target, signal: SignalName::Hup });
        let keys = "webhook = \"https://hooks.example.com/a\"\nsecret = { file = \"key\" }";
        let Action::Webhook(webhook) = action_of(keys) else { panic!("another action") };
        assert_eq!(webhook.secret, Some(crate::secret::Source::File("/etc/x/key".into())));
    }

    #[test]
    fn signals_and_files_are_for_changed_tokens() {
        let hooks = hooks_of(
            "[[hook]]\nname = \"a\"\nsignal = { pid_file = \"/run/a.pid\" }\n[[hook]]\nname = \"b\"\nrunner = \"x\"\nwrite_token = { path = \"/run/b\" }\n",
        );
        assert!(hooks[0].on.iter().all(|kind| kind.changes_token()) && hooks[0].on.len() == 4);
        assert_eq!(hooks[1].on, [HookKind::Registered, HookKind::Rotated, HookKind::Recovered]);
    }

    #[test]
    fn mistakes_of_each_action_name_what_to_write() {
        for (keys, expected) in [
            ("webhook = \"http://hooks.example.com\"", "`webhook`: it must begin with https://"),
            ("command = [\"/a\", \"a\\u0000\"]", "`command` has the character NUL"),
            ("command = [\"/a\"]\nsecret = { file = \"k\" }", "`secret` is for a `webhook`"),
            ("command = [\"/a\"]\nwebhook = \"https://a\"", "a hook does one thing: put `webhook` into a [[hook]]"),
            ("write_token = { path = \"/a\" }", "`write_token` needs `runner` with one name"),
            ("runner = \"a\"\nwrite_token = {}", "`write_token` needs `path`"),
            ("runner = \"a\"\nwrite_token = { path = \"/a\", mode = \"0666\" }", "`mode` must be permission bits"),
            (
                "runner = \"a\"\nwrite_token = { path = \"/a\", owner = \":x\" }",
                "`owner` must be a user, or USER:GROUP",
            ),
            ("signal = { signal = \"HUP\" }", "exactly one of `pid_file` and `unit`"),
            ("signal = { unit = \"--all\" }", "`unit` must be the name of a unit"),
            ("signal = { unit = \"a.service\", signal = \"KILL\" }", "`signal` must be one of HUP, USR1"),
        ] {
            let errors = diagnostics(&format!("[[hook]]\nname = \"a\"\n{keys}\n"));
            assert!(errors.contains(expected), "{expected} in {errors}");
        }
    }
}
