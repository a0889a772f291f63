//! Images are real file systems and the same every time.

use std::fs;
use std::process::Command;

use otad_demo::image::{self, Release};

#[test]
fn an_image_is_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let image = |name: &str| {
        let (tree, image) = (dir.path().join(format!("{name}-tree")), dir.path().join(name));
        image::plant(Release::Two, &tree).unwrap();
        image::make(&tree, &image, image::IMAGE_BYTES).unwrap();
        image
    };
    let first = fs::read(image("first")).unwrap();
    // Times of the source differ now by more than a second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = fs::read(image("second")).unwrap();
    let differing = first.iter().zip(&second).filter(|(a, b)| a != b).count();
    assert_eq!((first.len(), differing), (second.len(), 0));
}

/// The self-test of each release, run from the unpacked image as the device does: two work, the third says why not.
#[test]
fn the_self_tests_tell_good_from_bad_releases() {
    let dir = tempfile::tempdir().unwrap();
    for release in Release::ALL {
        let version = release.version();
        let tree = dir.path().join(&version);
        image::plant(release, &tree).unwrap();
        let output = Command::new(tree.join("bin/busybox"))
            .arg("sh")
            .arg(tree.join("usr/lib/app/selftest"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), release != Release::Three, "{said}");
        let expected = match release {
            Release::One | Release::Two => format!("self-test of app {version}: passed\n"),
            Release::Three => {
                format!("self-test of app {version}: calibration.tsv: 4 columns wanted, found: supply 10 0\n")
            }
        };
        assert_eq!(said, expected);
    }
}

/// A later release shares most of its files with the one before, and has more.
#[test]
fn releases_differ_as_releases_do() {
    let dir = tempfile::tempdir().unwrap();
    let tree = |release: Release| {
        let tree = dir.path().join(release.version());
        image::plant(release, &tree).unwrap();
        let mut find = Command::new("find");
        find.args([".", "-type", "f", "-exec", "sha256sum", "{}", "+"]).current_dir(&tree);
        let output = find.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let (one, two) = (tree(Release::One), tree(Release::Two));
    let kept = one.intersection(&two).count();
    assert!(kept * 10 >= one.len() * 8, "{kept} of {} files are kept", one.len());
    assert!(kept < one.len() && two.len() > one.len());
}
