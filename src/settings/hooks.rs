//! Reads the `[[hook]]` tables: what is run after an event.

use std::path::PathBuf;

use super::diagnostics::{Diagnostics, Placed};
use super::table::TableReader;
use crate::hooks::{Action, CommandAction, Hook, RETRIES, TIMEOUT, TokenInput};
use crate::model::HookKind;

const TOKEN: [(&str, TokenInput); 2] = [("stdin", TokenInput::Stdin), ("file", TokenInput::File)];

/// The keys of what is done, of which a hook has one.
const ACTIONS: [&str; 1] = ["command"];

/// The longest name: it is a label of a metric.
const MAX_NAME_CHARS: usize = 64;

/// Reads all `[[hook]]` tables.
pub(super) fn hooks(root: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    for table in root.tables("hook", diagnostics) {
        let place = table.place().clone();
        let Some(hook) = hook(table, diagnostics) else { continue };
        if hooks.iter().any(|known| known.name == hook.name) {
            diagnostics.add(&place, format!("two [[hook]] tables have the name `{}`: rename one", hook.name));
        }
        hooks.push(hook);
    }
    hooks
}

fn hook(mut table: TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<Hook> {
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
    let action = action(&mut table, diagnostics);
    let timeout = table.nonzero_span("timeout", diagnostics);
    let retries = table.number("retries", diagnostics);
    table.finish(diagnostics);
    if diagnostics.len() > before {
        return None;
    }
    let hook = Hook {
        name: name?,
        on: Vec::new(),
        runners: runners.map(|runners| runners.value).unwrap_or_default(),
        action: action?,
        timeout: timeout.map_or(TIMEOUT, |timeout| timeout.value),
        retries: retries.map_or(RETRIES, |retries| retries.value),
    };
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
    let is_possible = |kind: &HookKind| !hook.takes_token() || kind.leaves_token();
    let Some(on) = on else { return HookKind::ALL.iter().copied().filter(is_possible).collect() };
    for kind in on.value.iter().filter(|kind| !is_possible(kind)) {
        diagnostics.add(&on.place, format!("`on`: after `{kind}` there is no token that the hook could get"));
    }
    on.value
}

fn action(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Option<Action> {
    let token_place = table.place_of("token");
    let token = table.one_of("token", &TOKEN, diagnostics);
    let command = command(table, diagnostics);
    if let (Some(place), None) = (token_place, &command)
        && table.place_of("command").is_none()
    {
        diagnostics.add(&place, "`token` is for a `command`");
    }
    let (program, arguments) = command?;
    let token = token.map_or(TokenInput::None, |token| token.value);
    Some(Action::Command(CommandAction { program, arguments, token }))
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
    Some((PathBuf::from(program), arguments.to_vec()))
}

fn listed(keys: &[&str]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{diagnostics, loaded};
    use super::*;

    fn hooks_of(text: &str) -> Vec<Hook> {
        loaded(text).engine.hooks
    }

    #[test]
    fn a_hook_is_for_every_event_and_runner_unless_it_says_so() {
        let hooks = hooks_of("[[hook]]\nname = \"log\"\ncommand = [\"/usr/bin/logger\", \"-t\", \"runner\"]\n");
        let [hook] = &hooks[..] else { panic!("{hooks:?}") };
        assert_eq!((hook.on.as_slice(), hook.runners.len()), (HookKind::ALL, 0));
        assert_eq!((hook.timeout, hook.retries), (TIMEOUT, RETRIES));
        let Action::Command(command) = &hook.action;
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
        assert!(errors.contains("agent.toml:5: `on`: after `unregistered` there is no token"), "{errors}");
    }

    #[test]
    fn all_mistakes_of_hooks_are_reported_at_once() {
        let errors = diagnostics(
            "[[hook]]\non = [\"rotate\"]\n[[hook]]\nname = \"a b\"\ncommand = [\"logger\"]\n[[hook]]\nname = \"c\"\ntoken = \"stdin\"\ncomand = 1\n[[hook]]\nname = \"d\"\ncommand = [\"/a\"]\n[[hook]]\nname = \"d\"\ncommand = [\"/a\"]\n",
        );
        for expected in [
            ":1: [[hook]] needs `name`",
            ":1: [[hook]] needs one of `command`",
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
}
