//! Files in object storage instead of a directory: the same answers, and the same order of effects.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use otaserver::blobs::Blobs;
use otaserver::catalog::Catalog;
use otaserver::store::Store;

use crate::http::{get, send};
use crate::rig::{Server, Spec, delta, sha256};

fn served() -> (Server, Arc<InMemory>) {
    let objects = Arc::new(InMemory::new());
    let server = Server::with(|options| options.objects = Some(objects.clone()));
    (server, objects)
}

fn sizes(objects: &InMemory, kind: &str) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let listed = runtime.block_on(objects.list_with_delimiter(Some(&kind.into()))).unwrap();
    listed.objects.iter().map(|object| object.size).collect()
}

/// W6: an upload of several parts is there in full, whole and in ranges, and gone when it is withdrawn.
#[test]
fn w6_objects_are_served_like_files() {
    let (server, objects) = served();
    let [old, new] = [(1, 100_000), (2, 9 << 20)].map(|(sequence, random_bytes)| {
        Spec { sequence, random_bytes, seed: Some(7), ..Spec::default() }.bundle()
    });
    let between = delta(&old, &new);
    assert_eq!((server.upload(&new).status, server.upload(&new).status), (201, 200));
    assert_eq!(server.upload_delta(&between).status, 201);
    assert_eq!(sizes(&objects, "artifacts"), [new.len() as u64]);
    let url = format!("/artifacts/{}.otab", sha256(&new));
    let ask = |range: &str| send(server.address, "GET", &url, &[("Range", range)], b"");
    assert!(get(server.address, &url).body == new);
    assert!(get(server.address, &format!("/deltas/{}.otad-delta", sha256(&between))).body == between);
    let part = ask("bytes=8388600-8388700");
    assert_eq!((part.status, &part.body[..]), (206, &new[8_388_600..=8_388_700]));
    let several = ask("bytes=5000000-5000010,10-20");
    let found = |span: &[u8]| several.body.windows(span.len()).any(|window| window == span);
    assert!(several.status == 206 && found(&new[5_000_000..=5_000_010]) && found(&new[10..=20]));
    assert_eq!(ask("bytes=99999999-").status, 416);

    let name = format!("/api/v1/artifacts/{}", sha256(&new));
    assert_eq!(send(server.address, "DELETE", &name, &[], b"").status, 204);
    assert_eq!(get(server.address, &url).status, 410);
    assert_eq!(["artifacts", "deltas"].map(|kind| sizes(&objects, kind)), [[0; 0], [0; 0]]);
    assert_eq!(server.upload(&Spec { signed_by: 9, ..Spec::default() }.bundle()).status, 422);
    assert_eq!(sizes(&objects, "artifacts"), [0; 0], "what is refused never gets there");
    assert_eq!(server.files("incoming"), [""; 0]);
}

/// W8: a start withdraws what has lost its object, and tells that object storage is not the one of the database's other servers.
#[test]
fn w8_a_start_takes_stock_of_objects() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server, objects) = served();
    let bundle = Spec::default().bundle();
    assert_eq!(server.upload(&bundle).status, 201);
    let path = format!("artifacts/{}.otab", sha256(&bundle));
    runtime.block_on(objects.delete(&path.as_str().into())).unwrap();
    assert_eq!(get(server.address, &format!("/{path}")).status, 500);
    let location = crate::database::location(server.data(), 1 << 30);
    let store = runtime.block_on(Store::at(&location)).unwrap();
    let open = |objects: Arc<dyn ObjectStore>| {
        let blobs = Blobs::over(server.data(), objects).unwrap();
        runtime.block_on(Catalog::open(store.clone(), blobs, server.data().join("root.toml")))
    };
    open(objects.clone()).unwrap();
    assert_eq!(get(server.address, &format!("/{path}")).status, 410);
    assert_eq!(open(Arc::new(InMemory::new())).is_err(), store.is_shared());
    runtime.block_on(store.close());
}
