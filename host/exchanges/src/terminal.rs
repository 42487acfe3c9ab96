//! Output and progress.

use std::io::Write as _;

use edgeweir_host_launch::Running;
use indicatif::{ProgressBar, ProgressStyle};

/// Prints, and does not mind when nobody reads any more.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// A bar on a terminal, nothing elsewhere.
pub fn progress(length: u64, of: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {of} ({{eta}} left)"))
    {
        bar.set_style(style);
    }
    bar
}

/// The error, and what a child that was started said.
pub fn said(error: anyhow::Error, child: Option<&Running>) -> anyhow::Error {
    match child.map(|child| child.log_tail().trim().to_owned()) {
        Some(log) if !log.is_empty() => error.context(format!("the log says: {log}")),
        _ => error,
    }
}
