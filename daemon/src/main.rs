//! Arguments and exit status of `otad`, and the other program that this file is by the name `otactl`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::{Long, Short, ValueExt as _};
use otad::bus::Bus;
use otad::config;
use otad::daemon::Surroundings;
use otad::failure::{Code, Failure};
use otad::roles::Role;

const HELP: &str = "\
otad, the update daemon: installs signed bundles into the other slot, switches, and commits or rolls back

Usage: otad [OPTIONS]

Options:
  -c, --config FILE   configuration [default: /etc/otad/otad.toml]
      --bus BUS       system, session, or a D-Bus address [default: system]
      --check-config  check the configuration and exit
      --self-test     check whether this otad can read this device's configuration, boot environment, trust root and
                      record, change nothing, and exit
      --units             fetch through otad-fetch.socket, and check health in otad-health@.service: under systemd, where
                      this process has no network; else both are done by processes of its own
      --together      do both in this very process: to measure what separate ones cost, and for nothing else
      --health-checks SECONDS
                      run the health checks of the configuration, each for so long at most, and exit
      --role ROLE     be one of otad's own processes, fetcher or decoder, for whoever holds the other end of standard input
  -v, --verbose       log more
  -V, --version       print the version
  -h, --help          print this

Talk to it with otactl(1), or with busctl: busctl introspect org.otad1 /org/otad1
Exit status: 0 stopped on purpose, 1 failed, 2 usage, 75 another otad is running.
";

struct Arguments {
    config: PathBuf,
    bus: Bus,
    act: Act,
    role: Option<Role>,
    level: log::LevelFilter,
}

enum Act {
    Serve(Surroundings),
    HealthChecks(Duration),
    CheckConfig,
    SelfTest,
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "otactl") {
        return otactl::main();
    }
    otad::heap::keep_little();
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otad: {error}; see otad --help");
            return ExitCode::from(2);
        }
    };
    otad::adapters::journal::install(arguments.level);
    if let Some(role) = arguments.role {
        return role.run();
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::error!("{}: {failure}", failure.code);
            ExitCode::from(if failure.code == Code::AlreadyRunning { 75 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = config::load(&arguments.config)?;
    match arguments.act {
        Act::Serve(surroundings) => return otad::daemon::run(config, &arguments.bus, surroundings),
        Act::HealthChecks(limit) => otad::adapters::health::run_checks(&config.health, limit)?,
        Act::CheckConfig => println!("{}: good", arguments.config.display()),
        Act::SelfTest => println!("{}", otad::self_test::run(&config)?),
    }
    Ok(())
}

/// `None` when help or version was printed.
fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let mut parsed = Arguments {
        config: PathBuf::from("/etc/otad/otad.toml"),
        bus: Bus::System,
        act: Act::Serve(Surroundings::Alone),
        role: None,
        level: log::LevelFilter::Info,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('c') | Long("config") => parsed.config = parser.value()?.into(),
            Long("bus") => parsed.bus = Bus::from(parser.value()?.string()?.as_str()),
            Long("check-config") => parsed.act = Act::CheckConfig,
            Long("self-test") => parsed.act = Act::SelfTest,
            Long("units") => parsed.act = Act::Serve(Surroundings::Units),
            Long("together") => parsed.act = Act::Serve(Surroundings::Together),
            Long("health-checks") => {
                parsed.act = Act::HealthChecks(Duration::from_secs(parser.value()?.parse()?));
            }
            Long("role") => {
                let name = parser.value()?.string()?;
                let role = Role::ALL.into_iter().find(|role| role.name() == name);
                parsed.role = Some(role.ok_or_else(|| format!("there is no role `{name}`"))?);
            }
            Short('v') | Long("verbose") => parsed.level = log::LevelFilter::Debug,
            Short('V') | Long("version") => {
                println!("otad {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(parsed))
}
