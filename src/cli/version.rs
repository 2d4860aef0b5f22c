//! `version`: the version with what tells two builds of it apart.

use serde::Serialize;

use super::Exit;
use super::report::Reporter;

/// Shows the version.
pub(super) fn version(reporter: &Reporter) -> Exit {
    let build = Build::this();
    if reporter.is_json() {
        reporter.document_line("build", build);
    } else {
        reporter.answer(&build.text());
    }
    Exit::Done
}

/// This build.
#[derive(Serialize)]
struct Build {
    version: &'static str,
    /// The commit that the builder has named in RUNNER_AGENT_COMMIT.
    commit: Option<&'static str>,
    target: String,
    features: Vec<&'static str>,
}

impl Build {
    fn this() -> Self {
        let libc = if cfg!(target_env = "musl") { "-musl" } else { "-gnu" };
        let features = [("etcd", cfg!(feature = "etcd")), ("kubernetes", cfg!(feature = "kubernetes"))];
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("RUNNER_AGENT_COMMIT").filter(|commit| !commit.is_empty()),
            target: format!("{}-{}{libc}", std::env::consts::ARCH, std::env::consts::OS),
            features: features.into_iter().filter_map(|(name, is_on)| is_on.then_some(name)).collect(),
        }
    }

    fn text(&self) -> String {
        let features = if self.features.is_empty() { "none".to_owned() } else { self.features.join(", ") };
        format!(
            "runner-agent {}\ncommit    {}\ntarget    {}\nfeatures  {features}\n",
            self.version,
            self.commit.unwrap_or("unknown"),
            self.target
        )
    }
}
