//! The `edgeweir` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use edgeweir::cli::complain;
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
                    complain(&text);
                }
                ExitCode::from(exit.code)
            }
            None => {
                complain(&format!("edgeweir: {error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}
