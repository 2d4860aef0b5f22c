//! `init`: writes an agent.toml from flags, from answers on a terminal, or from the entries of config.toml.

mod arguments;
mod file;
mod questions;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

pub use arguments::InitArguments;

use super::context::Context;
use super::interrupt::Interrupt;
use super::list;
use super::terminal::converse;
use super::text::shell_word;
use super::{Error, Exit};
use crate::files::is_there;
use crate::gitlab::fleet::NewRunnerOwner;
use crate::settings::{
    self, NewDuty, NewEnrollment, NewFile, NewSource, Paths, ServedRunner, check_text, split_list, unknown_executor,
};

/// Writes agent.toml. Contacts no server, and writes no secret.
pub(super) async fn init(context: &Context<'_>, arguments: InitArguments, interrupt: Interrupt) -> Result<Exit, Error> {
    let paths = settings::paths(&context.overrides, &context.environment);
    file::check_free(&paths.agent_config, arguments.force)?;
    let force = arguments.force;
    let new = if arguments.from_config {
        let signal_unit = match arguments.signal_unit.clone() {
            None if may_ask(&arguments) && may_signal() => {
                converse(&interrupt, "nothing was written", questions::ask_signal).await?
            }
            given => given,
        };
        NewFile { duty: NewDuty::Serves(runners(context, &paths).await?), signal_unit }
    } else {
        enrollment(context, arguments, &interrupt).await?
    };
    let text = new.text();
    check_text(&text, &context.overrides, &context.environment)?;
    file::write(&paths.agent_config, &text, force)?;
    report(context, &paths, &new);
    Ok(Exit::Done)
}

/// The runners that have an entry in config.toml.
async fn runners(context: &Context<'_>, paths: &Paths) -> Result<Vec<ServedRunner>, Error> {
    let store = list::open(paths.store())?;
    let snapshot = store.read().await?;
    if snapshot.entries.is_empty() {
        let missing = if snapshot.exists { "" } else { ", which does not exist" };
        return Err(Error::Verdict {
            exit: Exit::LocalFile,
            message: format!("no runners in {}{missing}", paths.config.display()),
            hint: Some("name the file of the runners with --config, or leave --from-config out".to_owned()),
        });
    }
    for entry in snapshot.entries.iter().filter(|entry| !entry.problems.is_empty()) {
        context.reporter.remark(&format!("warning: the entry in line {} cannot be used: see `list`", entry.line));
    }
    let runner =
        |entry: &crate::store::Entry| ServedRunner { name: entry.name.clone(), id: entry.id, url: entry.url.clone() };
    Ok(snapshot.entries.iter().map(runner).collect())
}

async fn enrollment(context: &Context<'_>, arguments: InitArguments, interrupt: &Interrupt) -> Result<NewFile, Error> {
    let source = given_source(context, &arguments)?;
    let may_ask = may_ask(&arguments);
    let executor = arguments.executor.filter(|executor| !executor.is_empty());
    if let Some(unknown) = executor.as_deref().and_then(unknown_executor) {
        return Err(Error::Usage(format!("--executor: {unknown}")));
    }
    let draft = questions::Draft {
        url: arguments.url,
        name: arguments.name,
        source,
        executor,
        tag_list: arguments.tag_list.as_deref().map(split_list),
        has_template: arguments.template.is_some(),
        signal_unit: arguments.signal_unit,
        may_signal: may_signal(),
    };
    let hostname = context.environment.hostname.clone();
    let draft = if may_ask {
        converse(interrupt, "nothing was written", move |terminal| draft.ask(&hostname, terminal)).await?
    } else {
        draft.with_defaults(&hostname)
    };
    let (Some(url), Some(name), Some(source)) = (draft.url, draft.name, draft.source) else {
        return Err(Error::Usage(
            "not a terminal: give --url, and one of --access-token-file with --instance, --group or --project, --token-file and --registration-token-file; or --from-config"
                .to_owned(),
        ));
    };
    let template = arguments.template.map(|path| context.environment.absolute(&path));
    let tag_list = draft.tag_list.unwrap_or_default();
    if matches!(source, NewSource::Created(_)) && !tag_list.is_empty() {
        return Err(Error::Usage(
            "--tag-list: the tags of a runner that was created in GitLab are set there".to_owned(),
        ));
    }
    let enrollment = NewEnrollment { url, name, source, executor: draft.executor, tag_list, template };
    Ok(NewFile { duty: NewDuty::Enrolls(enrollment), signal_unit: draft.signal_unit })
}

fn may_ask(arguments: &InitArguments) -> bool {
    !arguments.non_interactive && io::stdin().is_terminal()
}

/// Whether gitlab-runner is here as a unit.
fn may_signal() -> bool {
    is_there(Path::new(GITLAB_RUNNER))
}

/// The source that flags name; their paths become absolute.
fn given_source(context: &Context<'_>, arguments: &InitArguments) -> Result<Option<NewSource>, Error> {
    let files = [
        ("--access-token-file", &arguments.access_token_file),
        ("--token-file", &arguments.token_file),
        ("--registration-token-file", &arguments.registration_token_file),
    ];
    for (flag, file) in files {
        let name = file.as_deref().and_then(Path::to_str);
        if let Some(refusal) = name.and_then(questions::refused_as_file) {
            return Err(Error::Usage(format!("{flag}: {refusal}")));
        }
    }
    let absolute = |path: &PathBuf| context.environment.absolute(path);
    let owner = match (arguments.group, arguments.project, arguments.instance) {
        (Some(id), ..) => Some(NewRunnerOwner::Group(id)),
        (None, Some(id), _) => Some(NewRunnerOwner::Project(id)),
        (None, None, true) => Some(NewRunnerOwner::Instance),
        (None, None, false) => None,
    };
    match (&arguments.access_token_file, owner) {
        (Some(file), Some(owner)) => Ok(Some(NewSource::Create { owner, access_token: absolute(file) })),
        (Some(_), None) => Err(Error::Usage(
            "--access-token-file: for whom is the runner? Add --instance, --group ID or --project ID".to_owned(),
        )),
        (None, Some(_)) => Err(Error::Usage("--instance, --group and --project need --access-token-file".to_owned())),
        (None, None) => Ok(match (&arguments.token_file, &arguments.registration_token_file) {
            (Some(file), _) => Some(NewSource::Created(absolute(file))),
            (None, Some(file)) => Some(NewSource::Registration(absolute(file))),
            (None, None) => None,
        }),
    }
}

/// Says what was written, and the next two commands.
fn report(context: &Context<'_>, paths: &Paths, new: &NewFile) {
    let path = paths.agent_config.display();
    let flags = file_flags(context);
    let run = if flags.is_empty() && paths.is_root && is_there(Path::new(SYSTEMD)) {
        "systemctl enable --now runner-agent    # or `runner-agent reload` if it runs".to_owned()
    } else {
        format!("runner-agent run{flags}")
    };
    let secret = match &new.duty {
        NewDuty::Enrolls(enrollment) => Some((&enrollment.source, beside(paths, enrollment.source.file()))),
        NewDuty::Serves(_) => None,
    };
    let first = match secret.filter(|(_, file)| !is_there(file)) {
        Some((source, file)) => {
            let what = match source {
                NewSource::Create { .. } => "access token",
                NewSource::Created(_) => "runner's token (glrt-)",
                NewSource::Registration(_) => "registration token",
            };
            format!(
                "install -m 600 /dev/stdin {}    # paste the {what}, then Enter and Ctrl-D",
                shell_word(&file.display().to_string())
            )
        }
        None => format!("runner-agent check{flags}    # looks for mistakes"),
    };
    context.reporter.answer(&format!("wrote {path}\nNext:\n  {first}\n  {run}\n"));
}

/// The flags that name other files than the default ones, for another command.
fn file_flags(context: &Context<'_>) -> String {
    let overrides = &context.overrides;
    let flags = [
        ("--config", &overrides.config),
        ("--agent-config", &overrides.agent_config),
        ("--state-dir", &overrides.state_dir),
    ];
    let flag = |(flag, path): (&str, &Option<PathBuf>)| {
        Some(format!(" {flag} {}", shell_word(&path.as_deref()?.display().to_string())))
    };
    flags.into_iter().filter_map(flag).collect()
}

/// The directory that systemd makes while it is the service manager.
const SYSTEMD: &str = "/run/systemd/system";

/// The unit of gitlab-runner's packages and of `gitlab-runner install`.
const GITLAB_RUNNER: &str = "/etc/systemd/system/gitlab-runner.service";

/// A file named in agent.toml.
fn beside(paths: &Paths, file: &Path) -> PathBuf {
    paths.agent_config.parent().unwrap_or(Path::new("")).join(file)
}
