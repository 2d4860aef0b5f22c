//! Names and arguments that are written to a terminal or a log.

use test_support::Output;

use crate::scene::Scene;

/// A line that is to look like one of the agent's, and characters that a terminal acts on or that turn the text around.
const NAME: &str = "x\\n2026-01-01T00:00:00Z ERROR forged\\r\\u001b[2J\\u009b31m\\u202e\\u2028";

fn is_clean(args: &[&str], output: &Output) -> Result<(), String> {
    let is_harmful = |character: char| {
        character.is_control() && character != '\n'
            || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
    };
    for text in [&output.stdout, &output.stderr] {
        if let Some(harmful) = text.chars().find(|character| is_harmful(*character)) {
            return Err(format!("{args:?} wrote {harmful:?}: {text:?}"));
        }
        if text.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")) {
            return Err(format!("{args:?} wrote a forged line: {text:?}"));
        }
    }
    Ok(())
}

/// An entry of the attacker's has the name, with a good token and with a wrong one.
pub(crate) fn lines_forged() -> Result<(), String> {
    let scene = Scene::new();
    let entry = scene.config().replace("\"found\"", &format!("\"{NAME}\""));
    let (_, rest) = entry.split_once("token = \"").unwrap();
    let (token, _) = rest.split_once('"').unwrap();
    for content in [entry.clone(), entry.replace(token, "glrt-made-up-by-the-attacker")] {
        scene.write_config(&content);
        scene.give("config/config.toml");
        for command in [&["list"][..], &["verify"], &["rotate", "--all"], &["run", "--once"], &["unregister", "--all"]]
        {
            for options in [&[][..], &["--output", "json"], &["--log-level", "trace"], &["--log-format", "json"]] {
                if command[0] == "run" && options.first() == Some(&"--output") {
                    continue;
                }
                let args = [command, options].concat();
                is_clean(&args, &scene.run(&args))?;
            }
        }
    }
    Ok(())
}

/// A token that stands where none belongs.
pub(crate) fn token_in_the_wrong_place() -> Result<(), String> {
    let scene = Scene::new();
    let token = "glrt-t1_AbCdEfGhIjKlMnOpQrSt";
    for args in [
        &["verify", token][..],
        &["register", "--limit", token],
        &["verify", "--token-file", token],
        &["rotate", "--all", "--pat-file", token],
        &["rotate", "--all", "--tls-ca-file", token, "--pat", token],
        &["fleet", "list", "--url", token],
        &["status", "--socket", token],
    ] {
        let output = scene.run(args);
        if output.text().contains("AbCdEfGhIjKl") {
            return Err(format!("{args:?} was echoed: {}", output.text()));
        }
    }
    Ok(())
}
