"""The bundle task, run for real: it calls otactl, and what it deploys verifies. OTAD_TOOLS names the directory of the programs."""

import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from tests import SOURCES
import layers

TOOLS = pathlib.Path(os.environ.get("OTAD_TOOLS", SOURCES / "target/debug"))
MIB = 1024 * 1024
TOKEN_LIBRARY = "/usr/lib/softhsm/libsofthsm2.so"


def otactl(*arguments):
    return subprocess.run([TOOLS / "otactl", *arguments], capture_output=True, text=True, check=True).stdout


class Bundle(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.top = pathlib.Path(temporary.name)
        self.deploy = self.top / "deploy"
        self.deploy.mkdir()
        self.image("otad-image-minimal-qemuarm64.rootfs.ext4")
        otactl("key", "generate", "--quiet", "--out", self.top / "release.key")
        otactl("trust", "create", "--quiet", "--key", self.top / "release.key.pub", "--out", self.top / "root.toml")
        self.local = (f'DISTRO_FEATURES:append = " otad"\nOTAD_VERSION = "1.2.3"\nOTAD_SEQUENCE = "7"\nOTAD_SLOT_SIZE_MIB = "4"\n'
                      f'DEPLOY_DIR_IMAGE = "{self.deploy}"\nSTAGING_BINDIR_NATIVE = "{TOOLS}"\nBB_NUMBER_THREADS = "2"\n'
                      f'OTAD_SIGNING_KEY = "{self.top}/release.key"\n')

    def image(self, name, size=3 * MIB, seed=b"image"):
        """A file that is no zeros and has no need to be a file system."""
        (self.deploy / name).write_bytes((seed * (size // len(seed) + 1))[:size])

    def make(self, lines="", good=True):
        """Runs the tasks; returns the datastore, or the errors where there have to be some."""
        parsed = layers.Layers(self.top / "build", self.local + lines)
        d = parsed.of("otad-bundle-minimal")
        self.assertIsNone(d.getVar("__SKIPPED"))
        try:
            layers.run(d, "do_bundle")
        except Exception as error:  # bb.fatal, as the worker sees it.
            errors = parsed.told.at(logging.ERROR)
            self.assertFalse(good, f"{error}: {errors}")
            return " ".join(errors)
        self.assertTrue(good, "no error")
        layers.bb.utils.mkdirhier(d.getVar("DEPLOYDIR"))
        layers.run(d, "do_deploy")
        self.assertEqual(parsed.told.warnings, [])
        return d

    def test_a_verified_bundle_is_deployed(self):
        d = self.make(f'OTAD_TRUST_ROOT = "{self.top}/root.toml"\nOTAD_COMPATIBLE = "board-a board-b"\n')
        deployed = pathlib.Path(d.getVar("DEPLOYDIR"))
        bundle = deployed / "otad-bundle-minimal-qemuarm64-1.2.3.otab"
        otactl("bundle", "verify", "--root", self.top / "root.toml", bundle)
        said = json.loads(bundle.with_suffix(".json").read_text())
        self.assertEqual((said["version"], said["sequence"], said["compatible"]), ("1.2.3", 7, ["board-a", "board-b"]))
        self.assertTrue(said["signature_verified"])
        self.assertEqual(os.readlink(deployed / "otad-bundle-minimal-qemuarm64.otab"), bundle.name)

    def test_an_image_larger_than_its_slot_is_an_error(self):
        self.make('OTAD_SLOT_SIZE_MIB = "3"\n')
        self.image("otad-image-minimal-qemuarm64.rootfs.ext4", 3 * MIB + 1)
        self.assertIn("is 3145729 bytes, the slot of rootfs holds 3145728", self.make('OTAD_SLOT_SIZE_MIB = "3"\n', good=False))

    def test_several_roles(self):
        self.image("Image", MIB, b"kernel")
        d = self.make('OTAD_BUNDLE_ROLES:forcevariable = "rootfs kernel"\nOTAD_IMAGE_kernel = "linux-yocto"\n'
                      'OTAD_IMAGE_kernel[file] = "Image"\nOTAD_IMAGE_kernel[slot-size-mib] = "1"\n')
        self.assertIn("linux-yocto:do_deploy", d.getVarFlag("do_bundle", "depends"))
        out = otactl("bundle", "inspect", "--json", pathlib.Path(d.getVar("DEPLOYDIR"), "otad-bundle-minimal-qemuarm64.otab"))
        self.assertIn('"role":"kernel"', out)

    def test_a_delta_from_an_earlier_bundle(self):
        d = self.make()
        old = self.top / "old.otab"
        shutil.copy(pathlib.Path(d.getVar("B"), "bundle.otab"), old)
        self.image("otad-image-minimal-qemuarm64.rootfs.ext4", seed=b"another")
        d = self.make(f'OTAD_DELTA_FROM = "{old}"\nOTAD_VERSION = "1.2.4"\nOTAD_SEQUENCE = "8"\n')
        otactl("bundle", "inspect", pathlib.Path(d.getVar("DEPLOYDIR"), "old--otad-bundle-minimal-qemuarm64-1.2.4.otad-delta"))

    def test_what_a_bundle_is_made_of_is_in_its_signature(self):
        one, other = (layers.base_hashes(layers.Layers(self.top / "build", self.local + lines).of("otad-bundle-minimal"))
                      for lines in ("", 'OTAD_IMAGE_rootfs[fstype] = "squashfs"\n'))
        changed = {task.rpartition(":")[2] for task in one if one[task] != other[task]}
        self.assertIn("do_bundle", changed)

    def test_a_key_under_a_passphrase_signs(self):
        locked, secret = self.top / "locked.key", self.top / "passphrase"
        secret.write_text("open sesame\n")
        subprocess.run(["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", self.top / "release.key", "-out", locked,
                        "-passout", f"file:{secret}"], check=True)
        shutil.copy(self.top / "release.key.pub", self.top / "locked.key.pub")
        lines = f'OTAD_SIGNING_KEY = "{locked}"\nOTAD_SIGNING_PASSPHRASE_FILE = "{secret}"\n'
        self.make(lines)
        secret.write_text("wrong\n")
        self.assertIn("the passphrase is wrong", self.make(lines, good=False))

    def test_an_external_command_signs(self):
        otactl("key", "generate", "--quiet", "--out", self.top / "other.key")
        signs = self.top / "sign"
        signs.write_text("#!/bin/sh\nset -e\ncat >$0.message\nopenssl pkeyutl -sign -rawin -inkey $1 -in $0.message\n")
        signs.chmod(0o755)
        lines = (f'OTAD_SIGNING_KEY = ""\nOTAD_SIGN_COMMAND = "{signs} {self.top}/other.key"\n'
                 f'OTAD_SIGNING_PUBLIC_KEY = "{self.top}/other.key.pub"\n')
        d = self.make(lines)
        otactl("bundle", "verify", "--key", self.top / "other.key.pub", pathlib.Path(d.getVar("B"), "bundle.otab"))
        self.assertIn("SIG_UNTRUSTED", self.make(lines + f'OTAD_TRUST_ROOT = "{self.top}/root.toml"\n', good=False))
        signs.write_text("#!/bin/sh\ncat >/dev/null\necho no token >&2\nexit 3\n")
        self.assertIn("ended with exit status: 3", self.make(lines, good=False))

    @unittest.skipUnless(os.path.exists(TOKEN_LIBRARY) and shutil.which("pkcs11-tool"), "needs softhsm2 and opensc")
    def test_a_token_signs(self):
        config = self.top / "softhsm2.conf"
        (self.top / "tokens").mkdir()
        config.write_text(f"directories.tokendir = {self.top}/tokens\n")
        os.environ["SOFTHSM2_CONF"] = str(config)
        self.addCleanup(os.environ.pop, "SOFTHSM2_CONF")
        token = ["pkcs11-tool", "--module", TOKEN_LIBRARY]
        quiet = {"check": True, "capture_output": True}
        subprocess.run([*token, "--init-token", "--slot-index", "0", "--label", "release", "--so-pin", "1234"], **quiet)
        subprocess.run([*token, "--init-pin", "--token-label", "release", "--so-pin", "1234", "--pin", "4321"], **quiet)
        with_pin = [*token, "--token-label", "release", "--login", "--pin", "4321"]
        subprocess.run([*with_pin, "--keypairgen", "--key-type", "EC:edwards25519", "--label", "otad", "--id", "01"], **quiet)
        pem = subprocess.run([*with_pin, "--read-object", "--type", "pubkey", "--label", "otad"], **quiet).stdout
        (self.top / "pin").write_text("4321\n")
        public = self.top / "token.pub"
        public.write_bytes(pem)
        uri = f"pkcs11:token=release;object=otad?module-path={TOKEN_LIBRARY}&pin-source={self.top}/pin"
        d = self.make(f'OTAD_SIGNING_KEY = "{uri}"\nOTAD_SIGNING_PUBLIC_KEY = "{public}"\n')
        otactl("bundle", "verify", "--key", public, pathlib.Path(d.getVar("B"), "bundle.otab"))

    def test_mistakes_are_said_before_otactl_is_asked(self):
        for lines, wanted in [
            ('OTAD_SIGNING_KEY = ""\n', "OTAD_SIGNING_KEY is not set"),
            ('OTAD_SIGNING_KEY = "/nowhere/release.key"\n', "there is no key /nowhere/release.key"),
            ('OTAD_SEQUENCE = ""\n', "OTAD_SEQUENCE is ''"),
            ('OTAD_VERSION = "2.1"\n', "OTAD_VERSION is '2.1'"),
            ('OTAD_SLOT_FSTYPE = "squashfs"\n', "otad-image-minimal deployed no otad-image-minimal-qemuarm64.rootfs.squashfs"),
            ('OTAD_SIGN_COMMAND = "true"\n', "need OTAD_SIGNING_PUBLIC_KEY"),
        ]:
            with self.subTest(lines=lines):
                self.assertIn(wanted, self.make(lines, good=False))


class Environment(unittest.TestCase):
    def test_the_environment_of_a_machine_is_made(self):
        with tempfile.TemporaryDirectory() as directory:
            top = pathlib.Path(directory)
            (top / "tools").mkdir()
            os.symlink(TOOLS / "bootenv", top / "tools/bootenv")
            os.symlink(shutil.which("mkimage"), top / "tools/mkimage")
            local = f'DISTRO_FEATURES:append = " otad"\nSTAGING_BINDIR_NATIVE = "{top}/tools"\nOTAD_BOOT_SCHEME = "boot-order"\n'
            d = layers.Layers(top / "build", local).of("otad-boot-environment")
            for task in ("do_fetch", "do_unpack", "do_compile", "do_install"):
                layers.run(d, task)
            made = pathlib.Path(d.getVar("B"))
            config = top / "fw_env.config"
            config.write_text((made / "fw_env.config").read_text().replace("/dev/mmcblk0", str(made / "otad-environment.img")))
            said = subprocess.run([TOOLS / "bootenv", "-c", config, "print", "BOOT_ORDER", "bootcmd"], capture_output=True,
                                  text=True, check=True).stdout
            self.assertEqual(said, "BOOT_ORDER=A\nbootcmd=run otad_boot\n")
            subprocess.run([TOOLS / "bootenv", "-c", config, "check"], check=True, capture_output=True)
            self.assertTrue((made / "boot.scr").exists())
            self.assertTrue(pathlib.Path(d.getVar("D"), "usr/share/otad/default.env").exists())


if __name__ == "__main__":
    unittest.main()
