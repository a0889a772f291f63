//! `bootenv`: reads and changes the U-Boot environment. Under the names `fw_printenv` and `fw_setenv` it behaves as U-Boot's
//! own tools do. Maps a result to an exit status and nothing else.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("{}: {error}", error.program());
            ExitCode::from(error.exit_status())
        }
    }
}
