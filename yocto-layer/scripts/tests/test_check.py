"""check.py finds what is broken on purpose, and nothing in the layer as it is."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from tests import LAYER, SCRIPTS, SOURCES

OTAD = "recipes-core/otad/otad_0.1.0.bb"
CRATES = "recipes-core/otad/otad-crates.inc"
# What is broken: file, text, what is written instead, and what check.py has to say.
BROKEN = [
    (OTAD, "do_install () {", "do_install () ", "ParseError"),
    (OTAD, "require otad-crates.inc", "require otad-crate.inc", "otad-crate.inc"),
    (OTAD, 'SUMMARY = "', 'SUMARY = "', "SUMMARY is not set"),
    (OTAD, "LICENSE-MIT systemd", "LICENSE-MIT systemt", "file://systemt is nowhere"),
    (OTAD, " bundle dbus", " dbus", "OTAD_SOURCES lacks bundle"),
    (OTAD, "inherit cargo cargo", "inherit carg cargo", "carg"),
    (OTAD, 'OTAD_RUST_VERSION = "1.94"', 'OTAD_RUST_VERSION = "1.90"', "rust-version"),
    (OTAD, 'OTAD_RUST_VERSION = "1.94"', 'OTAD_RUST_VERSION = "1.99"', "skipped: otad needs Rust 1.99"),
    (OTAD, "file://LICENSE-MIT;md5=", "file://LICENSE-MIT;md5=0", "is not the licence"),
    (OTAD, "d.getVar('OTAD_PROGRAMS').split()", "d.getVar('OTAD_PROGRAM').split()", "OTAD_PROGRAM"),
    (CRATES, ".sha256sum] = \"", ".sha256] = \"", "no sha256sum"),
    ("recipes-core/otad-data/otad-data_1.0.bb", "file://grow-data", "file://grow_data", "file://grow_data is nowhere"),
    ("recipes-core/bundles/otad-bundle-minimal.bb", "OTAD_IMAGE_rootfs", "OTAD_IMAGE_roofs", "did you mean OTAD_IMAGE_rootfs"),
    ("recipes-core/bundles/otad-bundle-minimal.bb", "OTAD_BUNDLE_ROLES", "OTAD_BUNDEL_ROLES", "did you mean OTAD_BUNDLE_ROLES"),
    ("recipes-kernel/linux/linux-yocto_%.bbappend", "'otad', 'linux", "'systemd', 'linux", "adding the layer changes"),
    ("conf/layer.conf", '"scarthgap wrynose"', '"scarthgap"', "not compatible with the core layer"),
]


class Check(unittest.TestCase):
    def check(self, layer):
        done = subprocess.run([sys.executable, SCRIPTS / "check.py", "--layer", layer], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_the_layer_is_good(self):
        self.assertEqual(self.check(LAYER), (0, ""))

    def test_every_broken_layer_is_found(self):
        for number, (file, old, new, wanted) in enumerate(BROKEN):
            with self.subTest(number=number, file=file, new=new), tempfile.TemporaryDirectory() as directory:
                for entry in SOURCES.iterdir():
                    if entry != LAYER:
                        os.symlink(entry, os.path.join(directory, entry.name))
                copy = pathlib.Path(directory) / "yocto-layer"
                shutil.copytree(LAYER, copy, symlinks=True)
                text = (copy / file).read_text()
                self.assertIn(old, text, f"{file} does not hold what this test breaks")
                (copy / file).write_text(text.replace(old, new, 1))
                code, said = self.check(copy)
                self.assertEqual(code, 1, said)
                self.assertIn(wanted, said)


if __name__ == "__main__":
    unittest.main()
