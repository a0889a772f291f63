//! `otactl` as a program of its own, for machines without otad. On a device it is another name of `otad`.

use std::process::ExitCode;

fn main() -> ExitCode {
    otactl::main()
}
