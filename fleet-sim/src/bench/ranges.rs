//! Range downloads by many slow clients: what a server's processor has to do for a gigabyte, beside nginx.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use otad_bundle::{Recipe, Update};

use super::{BenchError, Options, address, fresh_otaserver, runtime};
use crate::load::{Cost, Download, Downloads, Meter, download};
use crate::operator::Operator;

/// Clients, and what each takes: together 1 Gbit/s.
const CLIENTS: usize = 200;
const BYTES_PER_S: u64 = 625_000;
/// Content of the file: it fits into the page cache, so that no disk is measured.
const IMAGE_MIB: usize = 256;
/// How long a server may take to begin to listen.
const START: Duration = Duration::from_secs(10);

/// Measures both servers in turns, and returns the table.
///
/// # Errors
/// nginx is missing, or a server does not start.
pub fn ranges(options: &Options) -> Result<String, BenchError> {
    let (server, data) = fresh_otaserver(options)?;
    let bundle = bundle(data.path())?;
    let bytes = std::fs::read(&bundle).map_err(BenchError::io("cannot read the bundle"))?;
    let size = bytes.len() as u64;
    let uploaded = Operator::new(&server.url()).upload(&bytes)?;
    drop(bytes);
    let url = uploaded.get("url").and_then(|url| url.as_str()).unwrap_or_default().to_owned();
    let nginx = Nginx::start(data.path())?;
    let mut table = String::from(
        "| round | server | MB/s | failed clients | processor s per GB | memory MiB |\n|---:|---|---:|---:|---:|---:|\n",
    );
    let runtime = runtime()?;
    let mut costs = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        let both = [
            ("otaserver", address(&server)?, url.clone(), vec![server.pid()]),
            ("nginx", nginx.address, "/release.otab".to_owned(), nginx.pids()),
        ];
        for ((name, server, target, pids), costs) in both.into_iter().zip(&mut costs) {
            let downloads = Downloads {
                server,
                target,
                size,
                clients: CLIENTS,
                bytes_per_s: BYTES_PER_S,
                lasts: options.download,
            };
            let meter = Meter::start(pids)?;
            let got = runtime.block_on(download(&downloads));
            let cost = meter.read()?;
            costs.push(per_gigabyte(&got, &cost));
            let line = row(round, name, &got, &cost);
            eprint!("{line}");
            table += &line;
        }
    }
    let [otaserver, nginx] = costs.map(median);
    let _ = writeln!(
        table,
        "\nMedian: otaserver {otaserver:.2} s/GB, nginx {nginx:.2} s/GB, {:.1} times.",
        otaserver / nginx
    );
    Ok(table)
}

fn row(round: usize, name: &str, got: &Download, cost: &Cost) -> String {
    let rate = got.bytes as f64 / got.wall_s / 1e6;
    let (seconds, memory) = (per_gigabyte(got, cost), super::mib(cost.peak_bytes));
    format!("| {round} | {name} | {rate:.1} | {} | {seconds:.3} | {memory:.0} |\n", got.failed)
}

fn per_gigabyte(got: &Download, cost: &Cost) -> f64 {
    cost.cpu_s / (got.bytes as f64 / 1e9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A signed bundle with noise in it.
fn bundle(dir: &Path) -> Result<PathBuf, BenchError> {
    let fail = |error: otad_bundle::Error| BenchError::Other(format!("cannot make a bundle: {error}"));
    let (image, output) = (dir.join("image"), dir.join("release.otab"));
    let noise: Vec<u8> = (0..(IMAGE_MIB << 20) as u64 / 8)
        .flat_map(|at| otad::testing::medium::mix(7, at).to_le_bytes())
        .collect();
    std::fs::write(&image, noise).map_err(BenchError::io("cannot write an image"))?;
    let update = Update {
        version: "2.0.0".parse().map_err(|_| BenchError::Other("2.0.0 is no version".into()))?,
        sequence: 2,
        compatible: vec!["load".into()],
        description: String::new(),
        critical: Vec::new(),
    };
    let recipe =
        Recipe::new(update, vec![otad_bundle::Source { role: "rootfs".into(), path: image.clone() }]);
    let key = crate::model::key()?;
    otad_bundle::build(&recipe, &[&key], &output, &mut |_| {}).map_err(fail)?;
    std::fs::remove_file(image).map_err(BenchError::io("cannot remove the image"))?;
    Ok(output)
}

/// An nginx of Debian with the settings it comes with; it is ended when this is dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(dir: &Path) -> Result<Nginx, BenchError> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(BenchError::io("no free port"))?;
        let shown = dir.display();
        // `sendfile`, `tcp_nopush` and one worker per core are Debian's; `user root`, because the directory is private.
        let text = format!(
            "daemon off;\npid {shown}/nginx.pid;\nerror_log stderr error;\nworker_processes auto;\nuser root;\n\
             events {{ worker_connections 768; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {shown}/body;\n\
             server {{ listen {address}; root {shown}; }} }}\n"
        );
        let path = dir.join("nginx.conf");
        std::fs::write(&path, text).map_err(BenchError::io("cannot write nginx.conf"))?;
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .spawn()
            .map_err(BenchError::io("cannot start nginx (apt-get install nginx-light)"))?;
        let nginx = Nginx { child, address };
        let begin = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if begin.elapsed() > START {
                return Err(BenchError::Other(format!("nginx does not listen on {address}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }

    /// The master and its workers.
    fn pids(&self) -> Vec<u32> {
        let master = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let children = children.unwrap_or_default();
        std::iter::once(master)
            .chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()))
            .collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked to quit, the master takes its workers along; killed, it would leave them behind.
        let asked = i32::try_from(self.child.id()).map(|pid| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
        });
        if !matches!(asked, Ok(Ok(()))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
