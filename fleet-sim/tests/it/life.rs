//! The life of a release through devices that run otad's own code, with a server that is killed at random moments.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use otad_demo::Binaries;
use otad_fleet_sim::device::Device;
use otad_fleet_sim::life::{self, Cast};
use otad_fleet_sim::model::Model;
use otad_fleet_sim::nature::Nature;
use otad_fleet_sim::server::{Server, Setup};

const DEVICES: usize = 240;
const KILLS: u32 = 20;

/// W8, W9: 10 %, thresholds, a pause by itself at too many rollbacks, resume, 100 %, completed, with devices whose polling, fetching,
/// installing, committing and reporting is otad's own; and 20 kills on the way lose nothing and count nothing twice.
#[test]
fn w8_w9_the_life_of_a_release_with_otads_own_code() {
    let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    // An empty database of PostgreSQL, for example; without it the server has its own.
    let database = std::env::var("OTAD_FLEET_DATABASE").ok();
    let database: Vec<String> = database.into_iter().flat_map(|url| ["--database".to_owned(), url]).collect();
    // The model wants the server's address, the server its trust root: the root of every model is the same.
    let root = Model::new("acme", "http://127.0.0.1:1").unwrap().root();
    std::fs::write(data.path().join("root.toml"), root).unwrap();
    let server = Server::start(setup(data.path(), database)).unwrap();
    let model = Arc::new(Model::new("acme", &server.url()).unwrap());
    let devices =
        (0..DEVICES).map(|at| Device::new(&model, format!("gw-{at:04}"), Nature::of(at)).unwrap()).collect();
    let cast = Cast {
        devices,
        guest: None,
        bundle: model.bundle("2.0.0", 2).unwrap(),
        kills: KILLS,
        boot_seconds: 15,
        limit: Duration::from_secs(90),
        seed: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    };
    let ending = life::tell(server, cast).unwrap_or_else(|error| panic!("{error}"));
    println!("{ending}");
}

fn setup(data: &Path, database: Vec<String>) -> Setup {
    let program = Binaries::find().unwrap().path("otaserver");
    let fixed = ["--log-level", "error", "--heartbeat-seconds", "1", "--data"].map(str::to_owned);
    let arguments = fixed.into_iter().chain([data.display().to_string()]).chain(database);
    Setup { program, arguments: arguments.collect() }
}
