#
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
"""Runtime cases for testimage: a device that boots, takes a bundle, commits it, and goes back from a bad one.

The bundle is the one that the build deployed, with a higher sequence than the image: kas/test-qemuarm64.yml sets both. Without
such a bundle the install is skipped, and the rollback with it.
"""

import glob
import json
import os
import time

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

REBOOT_SECONDS = 300
POLL_SECONDS = 5


class OtadTest(OERuntimeTestCase):
    """In the order of their dependencies; each leaves the device idle."""

    def status(self):
        """What otactl says of the device, once it can be asked and has nothing under way."""
        until, said = time.monotonic() + REBOOT_SECONDS, "nothing"
        while time.monotonic() < until:
            code, said = self.target.run("otactl status --json", ignore_ssh_fails=True)
            if code == 0:
                return json.loads(said)
            time.sleep(POLL_SECONDS)
        self.fail(f"otad did not answer within {REBOOT_SECONDS} s; the last words: {said}")

    def settled(self, slot):
        """Waits for a confirmed system in a slot."""
        until = time.monotonic() + REBOOT_SECONDS
        while time.monotonic() < until:
            status = self.status()
            states = {entry["name"]: entry["state"] for entry in status["slots"]}
            if status["booted_slot"] == slot and status["state"] == "idle" and states[slot] == "confirmed":
                return status
            time.sleep(POLL_SECONDS)
        self.fail(f"slot {slot} was not confirmed within {REBOOT_SECONDS} s: {status}")

    def reboot(self):
        """Reboots and waits until another boot answers."""
        _, before = self.target.run("cat /proc/sys/kernel/random/boot_id")
        self.target.run("otactl reboot", ignore_ssh_fails=True)
        until = time.monotonic() + REBOOT_SECONDS
        while time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            code, now = self.target.run("cat /proc/sys/kernel/random/boot_id", ignore_ssh_fails=True)
            if code == 0 and now != before:
                return
        self.fail(f"no new boot within {REBOOT_SECONDS} s")

    @OEHasPackage(["otad"])
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    def test_otad_runs(self):
        """The daemon is up, knows its slot, and the image says which release it is."""
        status = self.status()
        self.assertIn(status["booted_slot"], ("a", "b"), status)
        self.assertEqual(status["problems"], [], status)
        code, said = self.target.run("systemctl is-active otad.service var-lib-otad.mount")
        self.assertEqual(code, 0, said)
        code, said = self.target.run("cat /usr/lib/otad/image.toml")
        self.assertEqual(code, 0, said)

    @OETestDepends(["otad.OtadTest.test_otad_runs"])
    def test_environment_is_healthy(self):
        """Linux reads both copies of the environment that U-Boot wrote."""
        code, said = self.target.run("bootenv check")
        self.assertEqual(code, 0, said)
        code, said = self.target.run("bootenv print -n bootcmd")
        self.assertEqual((code, said.strip()), (0, "run otad_boot"))

    @OETestDepends(["otad.OtadTest.test_environment_is_healthy"])
    def test_install_and_commit(self):
        """The deployed bundle goes into the other slot, boots, and is confirmed by its health."""
        before = self.settled(self.status()["booted_slot"])
        other = "b" if before["booted_slot"] == "a" else "a"
        running = max(entry["sequence"] for entry in before["slots"])
        bundles = glob.glob(os.path.join(self.td["DEPLOY_DIR_IMAGE"], "*.otab"))
        newer = [path for path in bundles if not os.path.islink(path) and self.sequence_of(path) > running]
        if not newer:
            self.skipTest(f"no bundle above sequence {running} in {self.td['DEPLOY_DIR_IMAGE']}")
        self.target.copyTo(max(newer, key=self.sequence_of), "/data/test.otab")
        code, said = self.target.run("otactl install /data/test.otab", timeout=REBOOT_SECONDS)
        self.assertEqual(code, 0, said)
        self.target.run("rm /data/test.otab")
        self.reboot()
        self.assertEqual(self.settled(other)["last_result"]["outcome"], "committed")

    @OETestDepends(["otad.OtadTest.test_install_and_commit"])
    def test_rollback(self):
        """A confirmed system goes back to the other slot on request, which proves itself like any release."""
        booted = self.settled(self.status()["booted_slot"])["booted_slot"]
        code, said = self.target.run("otactl rollback")
        self.assertEqual(code, 0, said)
        self.reboot()
        self.settled("b" if booted == "a" else "a")

    @staticmethod
    def sequence_of(bundle):
        """The sequence of a deployed bundle, from what its class wrote beside it."""
        with open(os.path.splitext(bundle)[0] + ".json", encoding="utf-8") as file:
            return json.load(file)["sequence"]
