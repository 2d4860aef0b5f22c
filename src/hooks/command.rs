//! Runs a command.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::limit::TimeLimit;
use super::program::{Input, Program};
use super::token_file::TokenFile;
use super::{Delivery, Hook, HookError};
use crate::model::{HookEvent, RunnerId, Timestamp};

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandAction {
    /// The absolute path of the program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How it gets the token.
    pub token: TokenInput,
}

/// How a command gets the runner's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenInput {
    /// It does not get it. Its stdin is the event as JSON.
    None,
    /// As its stdin.
    Stdin,
    /// As its file descriptor 3. Its stdin is the event as JSON.
    Descriptor,
    /// In a file that `RUNNER_AGENT_TOKEN_FILE` names. Its stdin is the event as JSON.
    File,
}

impl CommandAction {
    pub(super) async fn run(&self, hook: &Hook, delivery: Delivery<'_>, limit: TimeLimit) -> Result<String, HookError> {
        let mut variables = variables(hook, delivery.event);
        let token_file = self.token_file(delivery, limit).await?;
        if let Some(file) = &token_file {
            variables.push(("RUNNER_AGENT_TOKEN_FILE", file.path().display().to_string()));
        }
        let program = Program { path: &self.program, arguments: &self.arguments, variables };
        let body = hook.body(delivery.event)?;
        let line = delivery.token.map(|token| Zeroizing::new(format!("{}\n", token.expose())));
        let line = line.as_ref().map(|line| line.as_bytes());
        let (stdin, descriptor) = match self.token {
            TokenInput::Stdin => (line.unwrap_or_default(), None),
            TokenInput::Descriptor => (&body[..], line),
            TokenInput::File | TokenInput::None => (&body[..], None),
        };
        let said = program.run(Input { stdin, descriptor, secret: delivery.token }, limit).await;
        if let Some(file) = token_file {
            file.remove(limit).await;
        }
        Ok(format!("the command has succeeded{}", said?))
    }

    /// Writes the file that the command reads the token from.
    async fn token_file(&self, delivery: Delivery<'_>, limit: TimeLimit) -> Result<Option<TokenFile>, HookError> {
        let (TokenInput::File, Some(token)) = (self.token, delivery.token) else { return Ok(None) };
        let Some(path) = delivery.token_path else {
            let message = "`token = \"file\"` needs a state directory: use \"stdin\"";
            return Err(HookError::Lasting(message.to_owned()));
        };
        TokenFile::write(limit, path, token).await.map(Some)
    }
}

/// The variables about an event. None is a secret. A control character would break the lines of a script, and NUL cannot be
/// in a variable at all.
fn variables(hook: &Hook, event: &HookEvent) -> Vec<(&'static str, String)> {
    let variables = [
        ("RUNNER_AGENT_HOOK", hook.name.clone()),
        ("RUNNER_AGENT_EVENT", event.event.to_string()),
        ("RUNNER_AGENT_EVENT_ID", event.event_id.clone()),
        ("RUNNER_AGENT_RUNNER", event.runner.clone().unwrap_or_default()),
        ("RUNNER_AGENT_RUNNER_ID", event.runner_id.as_ref().map(RunnerId::to_string).unwrap_or_default()),
        ("RUNNER_AGENT_URL", event.url.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("RUNNER_AGENT_EXPIRES_AT", event.expires_at.as_ref().map(Timestamp::to_string).unwrap_or_default()),
    ];
    variables.map(|(name, value)| (name, value.replace(char::is_control, "\u{fffd}"))).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hooks::Action;
    use crate::hooks::file_work::hang;
    use crate::model::HookKind;
    use crate::secret::Token;

    fn hook(token: TokenInput, script: &str, timeout: Duration) -> Hook {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        let action = Action::Command(CommandAction { program: "/bin/sh".into(), arguments, token });
        let on = HookKind::ALL.to_vec();
        Hook { name: "a".to_owned(), on, runners: Vec::new(), action, timeout, retries: 5 }
    }

    fn run_for(token: TokenInput, script: &str, timeout: Duration) -> Result<String, HookError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.token");
        let (hook, event, secret) =
            (hook(token, script, timeout), HookEvent::sample(), Token::parse("secret-of-a-runner").unwrap());
        let delivery = Delivery { event: &event, token: Some(&secret), token_path: Some(&path), is_own: true };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(hook.run(delivery));
        assert!(!path.exists(), "the token's file is removed");
        result
    }

    /// Runs a script for a hook that does not take the token, with at most a second: the wait for output alone takes that.
    /// A machine under load gets more attempts.
    async fn run_in_time(script: &str) -> Result<String, HookError> {
        let (event, token) = (HookEvent::sample(), Token::parse("secret-of-a-runner").unwrap());
        let delivery = Delivery { event: &event, token: Some(&token), token_path: None, is_own: true };
        let hook = hook(TokenInput::None, script, Duration::from_secs(1));
        let mut result = hook.run(delivery).await;
        for _ in 0..10 {
            if result.as_ref().is_err_and(|error| error.to_string().contains("was killed")) {
                result = hook.run(delivery).await;
            }
        }
        result
    }

    fn run(token: TokenInput, script: &str) -> Result<String, HookError> {
        run_for(token, script, Duration::from_secs(60))
    }

    fn said(text: &str) -> Result<String, HookError> {
        Ok(format!("the command has succeeded: {text}"))
    }

    #[test]
    fn a_command_gets_the_event_in_its_environment_and_as_json() {
        let script = "echo $RUNNER_AGENT_HOOK $RUNNER_AGENT_EVENT $RUNNER_AGENT_RUNNER $RUNNER_AGENT_RUNNER_ID $RUNNER_AGENT_URL; cat";
        let expected = "a rotated builder 7 https://gitlab.example.com {\"schema\":1,\"hook\":\"a\",\"event_id\":\"test-rotated\",\"event\":\"rotated\",\"at\":\"1970-01-01T00:00:00Z\",\"runner\":\"builder\",\"runner_id\":7,\"url\":\"https://gitlab.example.com\",\"expires_at\":null,\"text\":\"the token was rotated\"}";
        assert_eq!(run(TokenInput::None, script), said(expected));
        assert_eq!(run(TokenInput::None, "env | grep -c ^RUNNER_AGENT; env | grep -c HOME"), {
            Err(HookError::Passing("the command has failed (exit status: 1): 7 0".to_owned()))
        });
    }

    #[test]
    fn a_command_gets_the_token_only_where_it_asks_for_it() {
        let counts = "grep -c '^secret-of-a-runner$'";
        assert_eq!(run(TokenInput::Stdin, counts), said("1"));
        assert_eq!(run(TokenInput::Descriptor, &format!("{counts} <&3; grep -c '\"event\":'")), said("1 1"));
        let in_file = format!("stat -c %a $RUNNER_AGENT_TOKEN_FILE; {counts} $RUNNER_AGENT_TOKEN_FILE");
        assert_eq!(run(TokenInput::File, &in_file), said("600 1"));
        assert_eq!(run(TokenInput::None, "(cat <&3) 2>/dev/null || echo none"), said("none"));
        assert_eq!(
            run(TokenInput::File, "cat /proc/self/environ /proc/self/cmdline - | grep -c secret- || true"),
            said("0")
        );
    }

    #[test]
    fn the_output_of_a_command_is_one_bounded_line_without_the_token() {
        assert_eq!(
            run(TokenInput::Stdin, "cat; echo a >&2; echo glrt-0123456789abcdefghij"),
            said("[token] [token] a")
        );
        let long = run(TokenInput::None, "yes | head -c 100000; exit 0").unwrap();
        assert!(long.len() < 2500, "{}", long.len());
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_all_its_processes() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        // The second process holds the pipe open for as long as it lives.
        let script = format!("mkfifo {0}; sleep 60 <> {0} & echo $!; wait", pipe.display());
        let error = run_for(TokenInput::None, &script, Duration::from_millis(1500)).unwrap_err();
        let pid: u32 = error.to_string().rsplit(' ').next().unwrap().parse().unwrap();
        let has_ended = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !is_running(pid)
        });
        assert!(has_ended, "process {pid}");
    }

    /// One that is dead and that its parent has not asked about is none.
    fn is_running(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn the_token_is_hidden_also_for_a_command_that_does_not_get_it() {
        assert_eq!(run_in_time("echo a secret-of-a-runner").await, said("a [token]"));
    }

    #[tokio::test]
    async fn the_exit_of_a_command_counts_whatever_it_leaves_behind() {
        assert_eq!(run_in_time("echo a; sleep 5 & exit 0").await, said("a"));
    }

    #[tokio::test]
    async fn the_file_for_the_token_is_removed_if_the_attempt_is_cancelled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.token");
        let (token, event) = (Token::parse("secret-of-a-runner").unwrap(), HookEvent::sample());
        let delivery = Delivery { event: &event, token: Some(&token), token_path: Some(&path), is_own: true };
        let hook = hook(TokenInput::File, "sleep 60", Duration::from_secs(60));
        let until = async |is_there: bool| {
            while path.exists() != is_there {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            ended = hook.run(delivery) => panic!("{ended:?}"),
            () = until(true) => {}
        }
        until(false).await;
    }

    #[test]
    fn control_characters_in_a_runners_name_are_replaced_in_variables() {
        let hook = hook(TokenInput::None, "", Duration::from_secs(60));
        let event = HookEvent { runner: Some("a\0b\nc ü".to_owned()), ..HookEvent::sample() };
        let variables = variables(&hook, &event);
        assert!(variables.contains(&("RUNNER_AGENT_RUNNER", "a\u{fffd}b\u{fffd}c ü".to_owned())), "{variables:?}");
    }

    #[tokio::test]
    async fn a_command_is_not_run_while_the_file_for_its_token_or_its_program_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let (path, program) = (directory.path().join("x.token"), directory.path().join("program"));
        let (token, event) = (Token::parse("secret-of-a-runner").unwrap(), HookEvent::sample());
        let delivery = Delivery { event: &event, token: Some(&token), token_path: Some(&path), is_own: true };
        let _end = hang(&path).await;
        let hook = hook(TokenInput::File, "exit 0", Duration::from_secs(60));
        let error = hook.run(delivery).await.unwrap_err().to_string();
        assert!(error.contains("x.token`: its disk or network share does not answer"), "{error}");
        let _end = hang(&program).await;
        let action = CommandAction { program, arguments: Vec::new(), token: TokenInput::None };
        let error = Hook { action: Action::Command(action), ..hook }.run(delivery).await.unwrap_err().to_string();
        assert!(error.contains("program`: its disk or network share does not answer"), "{error}");
    }

    #[test]
    fn a_program_that_the_kernel_does_not_execute_is_named_with_the_cause() {
        for (content, expected) in [
            (
                "#!/missing/interpreter\n",
                "so the interpreter that its first line (`#!`) or its binary names is missing",
            ),
            ("#!/etc/passwd\n", "is mounted with `noexec`, its interpreter is no program"),
            ("exit 0\n", "its first line does not name an interpreter, such as `#!/bin/sh`"),
        ] {
            let (_directory, error) = refusal_of_program(content, 0o755);
            assert!(error.contains("program`: cannot start the command: ") && error.contains(expected), "{error}");
        }
    }

    fn refusal_of_program(content: &str, mode: u32) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        std::fs::write(&program, content).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let action = CommandAction { program, arguments: Vec::new(), token: TokenInput::None };
        let hook = Hook { action: Action::Command(action), ..hook(TokenInput::None, "", Duration::from_secs(60)) };
        let event = HookEvent::sample();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let delivery = Delivery { event: &event, token: None, token_path: None, is_own: true };
        let error = runtime.block_on(hook.run(delivery)).unwrap_err();
        (directory, error.to_string())
    }

    #[test]
    fn a_program_of_others_is_not_run() {
        let (_directory, error) = refusal_of_program("#!/bin/sh\n", 0o777);
        assert!(error.contains("mode 0777"), "{error}");
    }
}
