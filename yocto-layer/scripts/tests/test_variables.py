"""A misspelled variable is named, with what was probably meant; a right one is not."""

import logging
import tempfile
import unittest

import tests  # noqa: F401
import layers


class Misspelled(unittest.TestCase):
    def told(self, local, recipe=""):
        with tempfile.TemporaryDirectory() as directory:
            parsed = layers.Layers(directory, local)
            parsed.start()
            if recipe:
                parsed.of(recipe)
            return [line for line in parsed.told.at(logging.WARNING) if "OTAD_" in line]

    def test_nothing_is_said_of_right_ones(self):
        self.assertEqual(self.told('DISTRO_FEATURES:append = " otad"\nOTAD_COMPATIBLE = "x"\nOTAD_VERSION:append = "0"\nOTAD_UBOOT = "0"\n'), [])

    def test_a_warning_names_the_right_one(self):
        self.assertEqual(self.told('DISTRO_FEATURES:append = " otad"\nOTAD_SEQUENZE = "4"\n'),
                         ["OTAD_SEQUENZE is no variable of meta-otad, so nothing reads it; did you mean OTAD_SEQUENCE?"])

    def test_an_override_does_not_hide_it(self):
        self.assertIn("OTAD_COMPATIBEL is no variable", self.told('OTAD_COMPATIBEL:qemuarm64 = "x"\n')[-1])

    def test_a_flag_of_an_image(self):
        said = self.told('DISTRO_FEATURES:append = " otad"\nOTAD_IMAGE_rootfs[fstyp] = "ext4"\n', "otad-bundle-minimal")
        self.assertIn("OTAD_IMAGE_rootfs[fstyp] is read by nothing; did you mean fstype?", said[0])

    def test_the_feature_is_missed(self):
        self.assertIn("DISTRO_FEATURES has no `otad`", self.told("")[0])
        self.assertEqual(self.told('OTAD_SANITY_SKIP = "1"\n'), [])


class OldRust(unittest.TestCase):
    def test_the_recipe_says_why_it_steps_aside(self):
        for version, skipped in [("1.75%", True), ("1.93.1", True), ("1.94.0", False), ("1.100.0", False)]:
            with self.subTest(version=version), tempfile.TemporaryDirectory() as directory:
                said = layers.Layers(directory, f'RUSTVERSION = "{version}"\n').of("otad").getVar("__SKIPPED") or ""
                self.assertEqual(f"otad needs Rust 1.94 or later, this distribution has {version.rstrip('%')}" in said, skipped)


if __name__ == "__main__":
    unittest.main()
