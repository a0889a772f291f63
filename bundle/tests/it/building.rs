//! Making bundles: the same bytes every time, nothing half-made, and the images come back.

use std::num::NonZeroUsize;

use otad_bundle::{
    Bundle, ChunkKind, Chunking, Compression, FileInput, Recipe, Source, StreamInput, build, extract,
};

use crate::support::{Rng, built, check, key, recipe, root, rootfs, update};

/// A megabyte or two of everything: zeros, repeated text, noise, and an odd end.
fn image() -> Vec<u8> {
    let mut rng = Rng(42);
    let mut image = vec![0; 700_000];
    image.extend(b"some text that is repeated very often. ".repeat(20_000));
    image.extend(rng.bytes(300_000));
    image.extend(vec![0; 300_001]);
    image
}

#[test]
fn output_depends_on_input_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    std::fs::write(&path, image()).unwrap();
    for compression in [Compression::DEFAULT, Compression::Gzip { level: 6 }, Compression::None] {
        for chunking in [Chunking::DEFAULT, Chunking::DEFAULT_FIXED] {
            let source = Source { role: "rootfs".into(), path: path.clone() };
            let mut recipe = Recipe::new(update("1.0.0", 1), vec![source]);
            recipe.compression = compression;
            recipe.chunking = chunking;
            let mut results = Vec::new();
            for threads in [1, 2, 7] {
                recipe.threads = NonZeroUsize::new(threads);
                results.push(built(&recipe, directory.path()));
            }
            assert!(results.iter().all(|result| *result == results[0]), "{compression:?} {chunking:?}");
            let out = directory.path().join("out");
            let mut bundle = Bundle::open(StreamInput::new(results[0].as_slice()), &root()).unwrap();
            let files = extract(&mut bundle, &out, &[], &mut |_| ()).unwrap();
            assert_eq!(std::fs::read(&files[0]).unwrap(), image(), "{compression:?} {chunking:?}");
            check(&results[0]).unwrap();
        }
    }
}

#[test]
fn kinds_are_chosen_by_content() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = built(&recipe(directory.path(), 1), directory.path());
    let mut bundle = Bundle::open(StreamInput::new(bytes.as_slice()), &root()).unwrap();
    let summary = bundle.summarise().unwrap();
    let counts = summary.images[0].kinds.map(|(kind, count)| (kind, count.chunks > 0));
    assert_eq!(
        counts,
        [
            (ChunkKind::Zero, true),
            (ChunkKind::Stored, true),
            (ChunkKind::Gzip, false),
            (ChunkKind::Zstd, true)
        ]
    );
    let plain: u64 = summary.images[0].kinds.iter().map(|(_, count)| count.plain).sum();
    assert_eq!(plain, rootfs(1).len() as u64);
    assert_eq!(summary.total_size, bytes.len() as u64);
    assert_eq!(summary.release, bundle.release());
}

#[test]
fn progress_rises_to_the_total() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = recipe(directory.path(), 1);
    let mut seen = Vec::new();
    build(&recipe, &[&key(1)], &directory.path().join("x"), &mut |progress| seen.push(progress)).unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].done < pair[1].done && pair[0].total == pair[1].total));
    let last = seen.last().unwrap();
    assert_eq!(last.done, last.total);
}

/// Mistakes are found, and no file of any kind is left.
#[test]
fn failures_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let images = tempfile::tempdir().unwrap();
    let good = recipe(images.path(), 1);
    let output = directory.path().join("x.otab");
    let empty = images.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    let mut cases: Vec<(&str, Recipe, &str)> = Vec::new();
    let mut case = |what, code, change: &dyn Fn(&mut Recipe)| {
        let mut recipe = good.clone();
        change(&mut recipe);
        cases.push((what, recipe, code));
    };
    case("empty image", "INVALID_OPTION", &|recipe| recipe.images[1].path.clone_from(&empty));
    case("missing image", "FILE_IO", &|recipe| recipe.images[1].path = "/nonexistent/image".into());
    case("directory", "FILE_IO", &|recipe| recipe.images[1].path = images.path().into());
    case("role", "INVALID_OPTION", &|recipe| recipe.images[0].role = "../x".into());
    case("role twice", "INVALID_OPTION", &|recipe| recipe.images[0].role = "kernel".into());
    case("no image", "INVALID_OPTION", &|recipe| recipe.images.clear());
    case("level", "INVALID_OPTION", &|recipe| recipe.compression = Compression::Zstd { level: 30 });
    case("chunking", "INVALID_OPTION", &|recipe| recipe.chunking = Chunking::Fixed { size: 1 });
    case("no hardware", "MANIFEST_INVALID", &|recipe| recipe.update.compatible.clear());
    case("sequence", "MANIFEST_INVALID", &|recipe| recipe.update.sequence = u64::MAX);
    for (what, recipe, code) in &cases {
        let error = build(recipe, &[&key(1)], &output, &mut |_| ()).unwrap_err();
        assert_eq!(error.code(), *code, "{what}: {error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{what}");
    }
    assert_eq!(build(&good, &[], &output, &mut |_| ()).unwrap_err().code(), "INVALID_OPTION");
    assert!(build(&good, &[&key(1), &key(1)], &output, &mut |_| ()).is_err(), "one key twice");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let nowhere = directory.path().join("no/such/x.otab");
    assert_eq!(build(&good, &[&key(1)], &nowhere, &mut |_| ()).unwrap_err().code(), "FILE_IO");

    // A failed build leaves the old output; a good one replaces it and leaves nothing else.
    std::fs::write(&output, b"old").unwrap();
    build(&cases[0].1, &[&key(1)], &output, &mut |_| ()).unwrap_err();
    assert_eq!(std::fs::read(&output).unwrap(), b"old");
    build(&good, &[&key(1)], &output, &mut |_| ()).unwrap();
    check(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// A full disk is told apart from other failures.
#[test]
fn a_full_output_is_no_space() {
    let images = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut bundle = {
        let recipe = recipe(images.path(), 1);
        let path = directory.path().join("x.otab");
        build(&recipe, &[&key(1)], &path, &mut |_| ()).unwrap();
        Bundle::open(FileInput::open(&path).unwrap(), &root()).unwrap()
    };
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = bundle.read_index(0, &mut full).unwrap_err();
    assert_eq!(error.code(), "NO_SPACE", "{error}");
}

#[test]
fn extract_writes_what_is_asked_and_only_what_is_right() {
    let images = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bytes = built(&recipe(images.path(), 1), images.path());
    let open = |bytes: &'_ [u8]| {
        Bundle::open(StreamInput::new(std::io::Cursor::new(bytes.to_vec())), &root()).unwrap()
    };
    let only = extract(&mut open(&bytes), directory.path(), &["kernel".into()], &mut |_| ()).unwrap();
    assert_eq!(only, [directory.path().join("kernel.img")]);
    assert_eq!(std::fs::read(&only[0]).unwrap(), crate::support::kernel(1));
    let error = extract(&mut open(&bytes), directory.path(), &["dtb".into()], &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("rootfs, kernel"), "{error}");

    let fresh = tempfile::tempdir().unwrap();
    let mut damaged = bytes.clone();
    let payload = damaged.windows(14).position(|name| name == b"rootfs.chunks\0").unwrap() + 600;
    damaged[payload] ^= 1;
    assert!(extract(&mut open(&damaged), fresh.path(), &[], &mut |_| ()).is_err());
    assert_eq!(std::fs::read_dir(fresh.path()).unwrap().count(), 0, "no image, no partial image");
}
