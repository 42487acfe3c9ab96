//! The `edgeweir` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use edgeweir_host_launch::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = edgeweir::cli::Arguments::parse();
    match edgeweir::cli::execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Exit>() {
            Some(exit) => {
                let text = exit.to_string();
                if !text.is_empty() {
                    eprintln!("{text}");
                }
                ExitCode::from(exit.code)
            }
            None => {
                eprintln!("edgeweir: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
