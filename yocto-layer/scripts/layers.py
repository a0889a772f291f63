"""The layer, parsed by the BitBake library with a stand-in for openembedded-core: for the checks of `make lint` and the tests.

Owns the build directory that BitBake wants, what BitBake says while it works, and nothing of the layer itself.
"""

import glob
import logging
import os
import pathlib
import sys
import types

LAYER = pathlib.Path(__file__).resolve().parent.parent
STANDIN = LAYER / "scripts/standin"

# The library asks for these two services of the server, which is not in its package; a parse needs neither.
for _name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
    sys.modules.setdefault(_name, types.ModuleType(_name))

import bb  # noqa: E402
import bb.build  # noqa: E402
import bb.cache  # noqa: E402
import bb.cookerdata  # noqa: E402
import bb.event  # noqa: E402
import bb.fetch2  # noqa: E402
import bb.parse  # noqa: E402


class Told(logging.Handler):
    """Keeps what BitBake says, by level."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append((record.levelno, record.getMessage()))

    def at(self, level):
        """What was said at this level or above."""
        return [line for number, line in self.lines if number >= level]

    @property
    def warnings(self):
        return self.at(logging.WARNING)


class Layers:
    """A configuration with the stand-in, the layer, and lines of a local.conf."""

    def __init__(self, directory, local="", layer=LAYER):
        self.told = Told()
        logger = logging.getLogger("BitBake")
        logger.handlers, logger.propagate = [self.told], False
        logger.setLevel(logging.INFO)
        conf = pathlib.Path(directory) / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        layers = [STANDIN] + ([layer] if layer else [])
        (conf / "bblayers.conf").write_text(f'BBPATH = "{directory}"\nBBLAYERS = "{" ".join(map(str, layers))}"\n')
        (conf / "local.conf").write_text(local)
        before = os.getcwd()
        os.chdir(directory)
        try:
            config = types.SimpleNamespace(prefile=[], postfile=[], tracking=True, skip_fragments=True,
                                           env={"PATH": os.environ["PATH"], "BBPATH": str(directory)})
            self.builder = bb.cookerdata.CookerDataBuilder(config)
            self.builder.parseBaseConfiguration()
        finally:
            os.chdir(before)
        self.data = self.builder.data

    def start(self):
        """Lets the handlers of a starting build run."""
        bb.event.fire(bb.event.BuildStarted("check", []), self.data)
        return self.told

    def recipes(self):
        """Paths of all recipes, each with those of its bbappends; one that appends to nothing is an error."""
        files = [path for pattern in self.data.getVar("BBFILES").split() for path in sorted(glob.glob(pattern))]
        appends = [path for path in files if path.endswith(".bbappend")]
        found = {}
        for path in files:
            if path.endswith(".bb"):
                name = os.path.basename(path)
                found[path] = [a for a in appends if _fits(os.path.basename(a), name)]
        lost = set(appends) - {a for list_ in found.values() for a in list_}
        if lost:
            raise ValueError(f"these append to no recipe of the stand-in: {', '.join(sorted(lost))}")
        return found

    def recipe(self, path, variant=""):
        """The datastore of a recipe or of a variant of it."""
        return self.builder.parseRecipeVariants(str(path), self.recipes()[str(path)])[variant]

    def of(self, name, variant=""):
        """The datastore of the recipe of that name."""
        for path in self.recipes():
            if os.path.basename(path).split("_")[0].removesuffix(".bb") == name:
                return self.recipe(path, variant)
        raise KeyError(name)


def _fits(append, recipe):
    stem, recipe = append.removesuffix(".bbappend"), recipe.removesuffix(".bb")
    return recipe.startswith(stem[:-1]) if stem.endswith("%") else recipe == stem


def run(d, task):
    """Runs one task for real."""
    for directory in (d.getVar("T"), d.getVar("WORKDIR")):
        bb.utils.mkdirhier(directory)
    d.setVar("BB_RUNTASK", task)
    bb.build.exec_func(task, d)


def base_hashes(d):
    """The hash of every task of a recipe, without those it depends on: what a bbappend would change."""
    ignored = set((d.getVar("BB_BASEHASH_IGNORE_VARS") or "").split())
    tasks, deps, values = bb.data.generate_dependencies(d, ignored)
    return bb.data.generate_dependency_hash(tasks, deps, values, ignored, d.getVar("FILE"))[1]
