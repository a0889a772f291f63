"""What is generated for the boot loader agrees with itself, with the guide, and with what other people's tools make of it."""

import pathlib
import re
import subprocess
import tempfile
import unittest

from tests import LAYER, SOURCES
from otadlayer import environment

FILES = LAYER / "recipes-bsp/otad-boot-environment/files"
SCHEMES = SOURCES / "test-images/uboot"
MACHINES = sorted(path.name for path in FILES.iterdir())
NUMBERS = environment.places("0x20000", "0x100000", "0x140000")


def compiled_in(machine, scheme, limit=3):
    return environment.compiled_in((FILES / machine / "otad-board.env").read_text(), (SCHEMES / f"{scheme}.env").read_text(),
                                   scheme, limit)


class Environment(unittest.TestCase):
    def each(self):
        for machine in MACHINES:
            for scheme in environment.SCHEMES:
                with self.subTest(machine=machine, scheme=scheme):
                    yield machine, scheme, compiled_in(machine, scheme)

    def test_it_is_the_text_of_the_guide(self):
        guide = (SOURCES / "docs/boot-integration.md").read_text()
        for _, scheme, variables in self.each():
            self.assertIn((SCHEMES / f"{scheme}.env").read_text(), guide)
            self.assertEqual(variables["bootcmd"], "run otad_boot")
            self.assertNotIn("\\", "".join(variables.values()))

    def test_every_variable_that_is_run_is_defined(self):
        for _, _, variables in self.each():
            for value in variables.values():
                for name in re.findall(r"\brun (\w+)", value):
                    self.assertIn(name, variables)

    def test_a_factory_device_starts_slot_a_alone(self):
        for _, scheme, variables in self.each():
            factory = environment.factory(variables, scheme, 3)
            self.assertNotIn(environment.MARK, factory)
            row = ("otad_slot", "a") if scheme == "bootcount" else ("BOOT_ORDER", "A")
            self.assertEqual(factory[row[0]], row[1])

    def test_mkenvimage_and_u_boot_take_it(self):
        with tempfile.TemporaryDirectory() as directory:
            text, image = pathlib.Path(directory, "text"), pathlib.Path(directory, "image")
            for _, scheme, variables in self.each():
                factory = environment.factory(variables, scheme, 3)
                text.write_text(environment.text_of(factory))
                subprocess.run(["mkenvimage", "-r", "-s", hex(NUMBERS[0]), "-p", "0", "-o", image, text], check=True)
                medium = environment.medium(image.read_bytes(), NUMBERS)
                self.assertEqual(len(medium), 2 * 1024 * 1024)
                config = pathlib.Path(directory, "fw_env.config")
                pathlib.Path(directory, "card").write_bytes(medium)
                config.write_text(environment.fw_env_config(f"{directory}/card", NUMBERS))
                said = subprocess.run(["fw_printenv", "-c", config], capture_output=True, text=True, check=True).stdout
                self.assertLessEqual({f"{name}={value}" for name, value in factory.items()}, set(said.splitlines()))

    def test_the_script_compiles(self):
        with tempfile.TemporaryDirectory() as directory:
            for machine in MACHINES:
                script, made = pathlib.Path(directory, "boot.cmd"), pathlib.Path(directory, "boot.scr")
                script.write_text(environment.boot_script(compiled_in(machine, "boot-order")))
                subprocess.run(["mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", script, made], check=True,
                               capture_output=True)
                self.assertIn(b"run otad_boot", made.read_bytes())

    def test_the_fragment_has_the_numbers_once(self):
        for machine in MACHINES:
            text = environment.u_boot_fragment((FILES / machine / "otad-board.config").read_text(),
                                               (SCHEMES / "bootcount.config").read_text(), environment.places("0x4000", "0", "0x8000"))
            self.assertEqual(re.findall(r"CONFIG_ENV_(?:SIZE|OFFSET\w*)=.*", text),
                             ["CONFIG_ENV_SIZE=0x4000", "CONFIG_ENV_OFFSET=0x0", "CONFIG_ENV_OFFSET_REDUND=0x8000"])
            self.assertIn('CONFIG_DEFAULT_ENV_FILE="@ENVIRONMENT@"', text)
            self.assertIn("CONFIG_BOOTCOUNT_ENV=y", text)

    def test_an_option_that_u_boot_did_not_take_is_named(self):
        fragment = "CONFIG_A=y\n# CONFIG_B is not set\n# a remark\nCONFIG_ENV_REDUNDANT=y\n"
        self.assertEqual(environment.not_taken(fragment, "CONFIG_A=y\nCONFIG_SYS_REDUNDAND_ENVIRONMENT=y\n"), [])
        self.assertEqual(environment.not_taken(fragment, "CONFIG_B=y\nCONFIG_ENV_REDUNDANT=y\n"),
                         ["CONFIG_A=y", "# CONFIG_B is not set"])
        self.assertEqual(environment.not_taken(fragment, "CONFIG_A=y\n"),
                         ["CONFIG_SYS_REDUNDAND_ENVIRONMENT or CONFIG_ENV_REDUNDANT=y"])

    def test_mistakes(self):
        board, text = (FILES / "qemuarm64/otad-board.env").read_text(), (SCHEMES / "boot-order.env").read_text()
        for call, word in [
            (lambda: environment.compiled_in(board, text, "bootorder", 3), "OTAD_BOOT_SCHEME"),
            (lambda: environment.compiled_in(board, text, "boot-order", 5), "counts to 3"),
            (lambda: environment.compiled_in(board, text, "boot-order", 10), "1 to 9"),
            (lambda: environment.compiled_in(board + "bootcmd=x\n", text, "boot-order", 3), "twice"),
            (lambda: environment.compiled_in("fdt_addr=1\n", text, "boot-order", 3), "otad_load_a"),
            (lambda: environment.places("0x20000", "0", "0x10000"), "do not fit"),
            (lambda: environment.places("128k", "0", "0x10000"), "are numbers"),
        ]:
            with self.assertRaisesRegex(environment.Mistake, word):
                call()


if __name__ == "__main__":
    unittest.main()
