"""The install tasks, run for real: what lands where, and that it is all of what `systemd/` mirrors."""

import pathlib
import tempfile
import unittest

from tests import SOURCES
import layers

# Examples for a person who writes the configuration by hand; otad-conf makes it here.
LEFT_OUT = {"usr/share/doc/otad/examples/otad.service.d.conf"}


class Installed(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.top = pathlib.Path(temporary.name)

    def install(self, name, local="", variant="", before=()):
        d = layers.Layers(self.top / "build", 'DISTRO_FEATURES:append = " otad"\n' + local).of(name, variant)
        if before:
            # Neither crates nor a compiler: what would be built is put where cargo leaves it.
            d.setVar("S", str(SOURCES))
            for path in before:
                made = pathlib.Path(d.expand(path))
                made.parent.mkdir(parents=True, exist_ok=True)
                made.write_text("#!/bin/true\n")
        else:
            layers.run(d, "do_fetch")
            layers.run(d, "do_unpack")
        layers.bb.utils.mkdirhier(d.getVar("D"))
        layers.run(d, "do_install")
        root = pathlib.Path(d.getVar("D"))
        return root, {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}

    PROGRAMS = tuple("${B}/target/${CARGO_TARGET_SUBDIR}/" + name for name in ("otad", "otactl", "bootenv", "another"))

    def test_otad_on_the_device(self):
        root, files = self.install("otad", before=self.PROGRAMS)
        mirrored = {str(path.relative_to(SOURCES / "systemd")) for path in (SOURCES / "systemd/usr").rglob("*") if path.is_file()}
        self.assertEqual(mirrored - LEFT_OUT - files, set())
        self.assertEqual(files - mirrored, {"usr/bin/otad", "usr/bin/otactl", "usr/bin/bootenv", "usr/share/dbus-1/interfaces/org.otad1.xml"})
        self.assertEqual((root / "usr/bin/otactl").readlink(), pathlib.Path("otad"))
        self.assertTrue((root / "usr/lib/otad/health.d").is_dir())
        self.assertEqual((root / "usr/lib/otad/on-trial").stat().st_mode & 0o777, 0o755)

    def test_otad_on_the_machine_that_builds(self):
        _, files = self.install("otad", variant="native", before=self.PROGRAMS)
        self.assertEqual(files, {"usr/bin/otactl", "usr/bin/bootenv"})

    def test_the_configuration_of_the_device(self):
        root = self.top / "root.toml"
        root.write_text("schema = 1\n")
        made, files = self.install("otad-conf", f'OTAD_TRUST_ROOT = "{root}"\nOTAD_COMPATIBLE = "board-a board-b"\nOTAD_BOOT_LIMIT = "5"\n'
                                   'OTAD_SERVER_URL = "https://updates.example.com/a?b=c&d"\n')
        self.assertEqual(files, {"etc/otad/otad.toml", "etc/otad/root.toml"})
        text = (made / "etc/otad/otad.toml").read_text()
        for line in ('compatible = "board-a"', "boot-limit = 5", 'scheme = "bootcount"', 'url = "https://updates.example.com/a?b=c&d"'):
            self.assertIn(line, text.splitlines())
        self.assertNotIn("@", text)

    def test_a_root_that_is_not_there_is_an_error(self):
        with self.assertRaises(Exception):
            self.install("otad-conf", 'OTAD_TRUST_ROOT = "/nowhere/root.toml"\n')

    def test_the_data_partition(self):
        root, files = self.install("otad-data")
        self.assertEqual(files, {"usr/lib/otad/grow-data"} | {f"usr/lib/systemd/system/{name}" for name in (
            "data.mount", "otad-data.service", "otad-grow-data.service", "var-lib-otad.mount")})
        self.assertTrue((root / "data").is_dir() and (root / "var/lib/otad").is_dir())

    def test_the_image_says_its_version(self):
        d = layers.Layers(self.top / "build", 'DISTRO_FEATURES:append = " otad"\nOTAD_VERSION = "2.1.0"\nOTAD_SEQUENCE = "42"\n').of("otad-image-minimal")
        layers.run(d, "otad_write_image_info")
        said = pathlib.Path(d.getVar("IMAGE_ROOTFS"), "usr/lib/otad/image.toml").read_text()
        self.assertEqual(said, 'version = "2.1.0"\nsequence = 42\n')
        self.assertEqual(d.getVar("IMAGE_ROOTFS_MAXSIZE"), str(512 * 1024))

    def test_the_image_says_its_kernel(self):
        local = 'DISTRO_FEATURES:append = " otad"\nOTAD_VERSION = "2.1.0"\nOTAD_SEQUENCE = "42"\n'
        with_modules = lambda local: layers.Layers(self.top / "build", local).of("otad-image-minimal")  # noqa: E731
        d = with_modules(local)
        root = pathlib.Path(d.getVar("IMAGE_ROOTFS"))
        modules = root / d.getVar("nonarch_base_libdir").lstrip("/") / "modules"
        info = root / "usr/lib/otad/image.toml"
        (modules / "6.12.1-yocto-standard").mkdir(parents=True)
        layers.run(d, "otad_write_image_info")
        self.assertTrue(info.read_text().endswith('sequence = 42\nkernel = "6.12.1-yocto-standard"\n'))
        d = with_modules(local + 'OTAD_KERNEL = "0123456789abcdef0123456789abcdef01234567"\n')
        layers.run(d, "otad_write_image_info")
        self.assertIn('kernel = "0123456789abcdef0123456789abcdef01234567"', info.read_text())
        d = with_modules(local + 'OTAD_KERNEL = ""\n')
        layers.run(d, "otad_write_image_info")
        self.assertNotIn("kernel", info.read_text())
        # Modules of two kernels do not say which one runs.
        (modules / "6.12.2-yocto-standard").mkdir()
        d = with_modules(local)
        layers.run(d, "otad_write_image_info")
        self.assertNotIn("kernel", info.read_text())


if __name__ == "__main__":
    unittest.main()
