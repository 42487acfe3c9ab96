//! Tokens: from a file or from the environment, never from the command line, where every user of a machine sees them.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// The token in the first line of a file, else in an environment variable, else none.
pub fn token(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<String>> {
    let token = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("--token-file {}", file.display()))?;
            Some(text.lines().next().unwrap_or_default().trim().to_owned())
        }
        None => std::env::var(variable).ok().filter(|it| !it.is_empty()),
    };
    if let Some(token) = &token {
        let from = file.map_or(variable.to_owned(), |file| file.display().to_string());
        ensure!(
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
            "{from}: a token is visible ASCII"
        );
    }
    Ok(token)
}
