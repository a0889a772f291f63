"""The cases for testimage, run on a device that is a dictionary: they pass on a good one and fail on one that goes back."""

import importlib.util
import json
import pathlib
import sys
import tempfile
import types
import unittest
from unittest import mock

from tests import LAYER


def _cases():
    """The module, with a stand-in for the parts of oeqa that it takes."""
    passed = lambda *_: lambda function: function  # noqa: E731
    names = {"oeqa": {}, "oeqa.core": {}, "oeqa.core.decorator": {}, "oeqa.core.decorator.depends": {"OETestDepends": passed},
             "oeqa.runtime": {}, "oeqa.runtime.case": {"OERuntimeTestCase": unittest.TestCase}, "oeqa.runtime.decorator": {},
             "oeqa.runtime.decorator.package": {"OEHasPackage": passed}}
    modules = {name: types.ModuleType(name) for name in names}
    for name, content in names.items():
        vars(modules[name]).update(content)
    path = LAYER / "lib/oeqa/runtime/cases/otad.py"
    spec = importlib.util.spec_from_file_location("otad_cases", path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, modules):
        spec.loader.exec_module(module)
    return module


class Device:
    """Two slots; a new system is on trial for two questions, then confirmed or, if `bad`, gone."""

    def __init__(self, bad=False):
        self.bad, self.boot, self.questions = bad, 1, 0
        self.booted, self.next, self.trial = "a", "a", False
        self.sequence = {"a": 1, "b": 0}
        self.outcome = None

    def copyTo(self, *_):
        return 0, ""

    def run(self, command, **_):
        act = command.split()
        if act[:2] == ["otactl", "status"]:
            return 0, json.dumps(self.status())
        if act[:2] in (["otactl", "install"], ["otactl", "rollback"]):
            self.next = "b" if self.booted == "a" else "a"
            if act[1] == "install":
                self.sequence[self.next] = 2
        elif act[:2] == ["otactl", "reboot"]:
            self.boot, self.booted, self.trial, self.questions = self.boot + 1, self.next, True, 0
        elif act[0] == "cat":
            return 0, str(self.boot)
        elif act[:2] == ["bootenv", "print"]:
            return 0, "run otad_boot\n"
        return 0, ""

    def status(self):
        self.questions += self.trial
        if self.questions > 2:
            if self.bad:
                self.booted = "b" if self.booted == "a" else "a"
            self.trial, self.questions, self.outcome = False, 0, "rolled-back" if self.bad else "committed"
        slots = [{"name": name, "sequence": self.sequence[name], "state": "disarmed" if name != self.booted else
                  "trial" if self.trial else "confirmed"} for name in "ab"]
        return {"state": "post-upgrade" if self.trial else "idle", "booted_slot": self.booted, "problems": [], "slots": slots,
                "last_result": {"outcome": self.outcome}}


class Cases(unittest.TestCase):
    def play(self, device, deploy, names):
        module = _cases()
        clock = iter(range(10**6))
        with mock.patch.object(module.time, "sleep"), mock.patch.object(module.time, "monotonic", lambda: next(clock)):
            result = unittest.TestResult()
            for name in names:
                case = module.OtadTest(name)
                case.target, case.td = device, {"DEPLOY_DIR_IMAGE": str(deploy)}
                case.run(result)
        return result

    def deployed(self, sequence):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        deploy = pathlib.Path(temporary.name)
        (deploy / "x.otab").touch()
        (deploy / "x.json").write_text(json.dumps({"sequence": sequence}))
        return deploy

    ALL = ("test_otad_runs", "test_environment_is_healthy", "test_install_and_commit", "test_rollback")

    def test_a_good_device_passes(self):
        device = Device()
        result = self.play(device, self.deployed(2), self.ALL)
        self.assertEqual((result.testsRun, result.failures, result.errors, result.skipped), (4, [], [], []))
        self.assertEqual((device.booted, device.boot), ("a", 3))

    def test_a_release_that_goes_back_fails(self):
        result = self.play(Device(bad=True), self.deployed(2), self.ALL[2:3])
        self.assertIn("slot b was not confirmed", result.failures[0][1])

    def test_no_newer_bundle_is_no_install(self):
        self.assertIn("no bundle above sequence 1", self.play(Device(), self.deployed(1), self.ALL[2:3]).skipped[0][1])


if __name__ == "__main__":
    unittest.main()
