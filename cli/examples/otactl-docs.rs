//! Writes the man pages and the bash, zsh and fish completions of `otactl` into a directory.
//!
//! `cargo run -p otactl --example otactl-docs -- DIR`; packaging runs it. They come from the definition that also feeds
//! the parser and `--help`, so the three cannot disagree.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

fn main() -> std::io::Result<()> {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: otactl-docs DIR");
        std::process::exit(2);
    };
    std::fs::create_dir_all(&directory)?;
    clap_mangen::generate_to(otactl::args::Cli::command(), &directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut otactl::args::Cli::command(), "otactl", &directory)?;
    }
    Ok(())
}
