//! The progress bar of commands that work on several runners.

use indicatif::{ProgressBar, ProgressStyle};

use super::report::Reporter;

/// A bar on stderr that counts to `total`; hidden unless a person watches more than one item.
pub(super) fn bar(reporter: &Reporter, total: usize, unit: &str) -> ProgressBar {
    if total < 2 || reporter.is_json() || !reporter.is_stderr_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(total).unwrap_or_default());
    match ProgressStyle::with_template(&format!("{{bar:30}} {{pos}} of {{len}} {unit}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
