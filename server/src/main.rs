//! `otaserver`: arguments and wiring; nothing else.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use otaserver::admin::{self, AdminArgs};
use otaserver::args::Args;
use otaserver::blobs::Blobs;
use otaserver::catalog::Catalog;
use otaserver::http::{Access, App, router};
use otaserver::store::Store;
use otaserver::tls::Tls;
use otaserver::{channels, logger, open_files, rounds, serve, verify, webhooks};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What ends the program before or while it serves.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long threads that still verify an upload may hold up the end. What they leave is removed at the next start.
const THREAD_GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "admin") {
        return administer();
    }
    let args = Args::parse();
    logger::install(args.log_level);
    let result = tokio::runtime::Runtime::new().map_err(Failure::from).and_then(|runtime| {
        let result = runtime.block_on(run(&args));
        runtime.shutdown_timeout(THREAD_GRACE);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `otaserver admin …`: the words after `admin` are a command line of their own.
fn administer() -> ExitCode {
    let args = AdminArgs::parse_from(std::env::args_os().skip(1));
    logger::install(log::LevelFilter::Warn);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(admin::run(&args))) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    fs::create_dir_all(&args.data)
        .map_err(|error| format!("cannot create {}: {error}", args.data.display()))?;
    let _lock = lock(&args.data)?;
    let mut limits = args.limits();
    limits.max_connections = open_files::make_room(limits.max_connections);
    let access = match &args.upload_token_file {
        Some(path) => Access::from_token_file(path)?,
        None => Access::LoopbackOnly,
    };
    let tls = args.tls().map(Tls::open).transpose()?.map(Arc::new);
    let root = trust_root(args)?;
    let blobs = Blobs::at(&args.data, args.artifacts.as_ref().unwrap_or(&args.data))?;
    let store = Store::at(&args.location()).await?;
    channels::take_over(&store, &args.data).await?;
    let catalog = Catalog::open(store.clone(), blobs, root).await?;

    let listener = TcpListener::bind(&args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let address = listener.local_addr()?;
    let shutdown = shutdown_signal()?;
    let fresh = tls.clone().map(Tls::keep_fresh).transpose()?.map(tokio::spawn);
    announce(&format!("listening on {}://{address}", if tls.is_some() { "https" } else { "http" }));

    let app = Arc::new(App::open(catalog, store.clone(), access, args.webhooks()?, limits.clone()).await?);
    let rounds = [tokio::spawn(rounds::run(app.clone())), tokio::spawn(webhooks::run(app.clone()))];
    serve::serve(listener, router(app.clone()), &limits, tls, shutdown).await;
    for task in rounds {
        task.abort();
        // That it was cancelled is no news; but what it held of the database has to be back before that is closed.
        let _ = task.await;
    }
    fresh.inspect(tokio::task::JoinHandle::abort);
    rounds::flush(&app).await;
    store.close().await;
    Ok(())
}

/// The trust root to use. Named, it has to be good; the default may still be put in place later.
fn trust_root(args: &Args) -> Result<PathBuf, Failure> {
    let path = args.root.clone().unwrap_or_else(|| args.data.join("root.toml"));
    match verify::read_root(&path) {
        Ok(_) => {}
        Err(error) if args.root.is_some() => return Err(error.into()),
        Err(error) => log::warn!("{error}"),
    }
    Ok(path)
}

/// Two servers on one directory would take each other's uploads for leftovers.
fn lock(data: &Path) -> Result<File, Failure> {
    let path = data.join("lock");
    let failed = |error: std::io::Error| format!("cannot lock {}: {error}", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(format!("another otaserver works in {}; stop it or use another --data", data.display())
                .into())
        }
        Err(TryLockError::Error(error)) => Err(failed(error).into()),
    }
}

/// Standard output is for whoever started the server; that nobody reads it is no reason to end.
fn announce(line: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        log::warn!("cannot write to standard output: {error}");
    }
    log::info!("{line}");
}

fn shutdown_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => log::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => log::info!("stopping on SIGINT"),
        }
    })
}
