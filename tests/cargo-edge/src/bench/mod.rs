//! `cargo edge bench`: Envoy and the host side by side.

use anyhow::{Result, bail};
use clap::Args;

/// What is measured, and for how long.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Two rounds of a second each: to see that everything runs.
    #[arg(long)]
    pub quick: bool,
}

/// The command.
pub fn command(_options: &Options) -> Result<()> {
    bail!("being written")
}
