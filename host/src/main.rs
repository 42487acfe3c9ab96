//! The `edgeweir` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = edgeweir::cli::Arguments::parse();
    match edgeweir::cli::execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edgeweir: {error:#}");
            ExitCode::FAILURE
        }
    }
}
