#!/usr/bin/env python3
"""check.py [--layer DIR]: parses the layer with the BitBake library and says everything that is wrong with it.

For each machine, with and without the feature: every recipe, class and bbappend parses and says nothing; files and checksums are
there; a build that does not ask for otad is the same with and without the layer. See standin/README.md for what this cannot see.
"""

import argparse
import hashlib
import logging
import os
import pathlib
import re
import tempfile
import tomllib

import layers

MACHINES = ("qemuarm64", "raspberrypi4-64", "qemux86-64")
# The machine of which the layer knows no boot environment: the recipe steps aside there.
UNKNOWN_MACHINE = "qemux86-64"
GOOD = 'OTAD_SEQUENCE = "1"\nOTAD_VERSION = "1.0.0"\n'
FEATURE = 'DISTRO_FEATURES:append = " otad"\n'


def _recipe(name, d):
    """What is wrong with one parsed recipe."""
    wrong = [f"{name}: {key} is not set" for key in ("SUMMARY", "LICENSE") if not d.getVar(key)]
    for url in (d.getVar("SRC_URI") or "").split():
        kind, _, rest = url.partition("://")
        path, *parameters = rest.split(";")
        options = dict(item.split("=", 1) for item in parameters)
        if kind == "file" and not layers.bb.utils.which(d.getVar("FILESPATH"), path):
            wrong.append(f"{name}: file://{path} is nowhere in FILESPATH")
        if kind == "crate" and not re.fullmatch("[0-9a-f]{64}", d.getVarFlag("SRC_URI", options["name"] + ".sha256sum") or ""):
            wrong.append(f"{name}: no sha256sum for {url}")
    for entry in (d.getVar("LIC_FILES_CHKSUM") or "").split():
        path, _, wanted = entry.removeprefix("file://").partition(";md5=")
        path = path if path.startswith("/") else os.path.join(d.getVar("OTAD_SOURCE_DIR"), path)
        if not os.path.exists(path) or hashlib.md5(pathlib.Path(path).read_bytes()).hexdigest() != wanted:
            wrong.append(f"{name}: {path} is not the licence of LIC_FILES_CHKSUM")
    for task in d.getVar("__BBTASKS", False) or []:
        if d.getVarFlag(task, "func") and not d.getVar(task, False):
            wrong.append(f"{name}: the task {task} does nothing")
    return wrong


def _configuration(directory, machine, feature, layer):
    """What is wrong with every recipe of one configuration."""
    local = GOOD + f'MACHINE = "{machine}"\n'
    if feature:
        # As the user of a known machine writes it.
        local += FEATURE if machine == UNKNOWN_MACHINE else f"require conf/include/otad-{machine}.inc\n"
    parsed = layers.Layers(directory, local, layer)
    wrong, at = [], f"{machine}, {'with' if feature else 'without'} the feature"
    for path, appends in parsed.recipes().items():
        name = f"{os.path.basename(path)} ({at})"
        for variant, d in parsed.builder.parseRecipeVariants(path, appends).items():
            skipped = d.getVar("__SKIPPED")
            if skipped and machine != UNKNOWN_MACHINE:
                wrong.append(f"{name}: skipped: {skipped}")
            elif not skipped:
                wrong += _recipe(f"{name}{' ' + variant if variant else ''}", d)
                # Expands every value, so that every inline Python runs.
                for key in [key for key in d.keys() if not key.startswith("_")]:
                    d.getVar(key)
    if feature:
        parsed.start()
    return wrong + [f"{at}: {line}" for line in parsed.told.warnings]


def _inert(directory, layer):
    """Tasks of the stand-in's recipes that change when the layer is added and nothing asks for it."""
    def hashes(parsed):
        found = {}
        for path in parsed.recipes():
            if str(path).startswith(str(layers.STANDIN)):
                found |= layers.base_hashes(parsed.recipe(path))
        return found

    alone = hashes(layers.Layers(directory + "/alone", layer=None))
    added = hashes(layers.Layers(directory + "/added", layer=layer))
    asked = hashes(layers.Layers(directory + "/asked", FEATURE, layer=layer))
    wrong = [f"adding the layer changes {task}" for task in sorted(alone) if alone[task] != added.get(task)]
    if not alone or asked == added:
        wrong.append("the comparison of signatures compares nothing: the feature changes no task either")
    return wrong


def _versions(directory, layer):
    """The recipe and Cargo.toml say the same; cargo builds nothing while a member of the workspace is missing."""
    d = layers.Layers(directory + "/versions", layer=layer).of("otad")
    with open(os.path.join(d.getVar("OTAD_SOURCE_DIR"), "Cargo.toml"), "rb") as file:
        workspace = tomllib.load(file)["workspace"]
    package, taken = workspace["package"], d.getVar("OTAD_SOURCES").split()
    missing = [f"otad: OTAD_SOURCES lacks {name}, a member of the workspace" for name in workspace["members"] if name not in taken]
    pairs = {"PV": "version", "OTAD_RUST_VERSION": "rust-version"}
    return missing + [f"otad: {name} is {d.getVar(name)}, Cargo.toml's {key} is {package[key]}"
            for name, key in pairs.items() if d.getVar(name) != package[key]]


def problems(layer):
    """Everything that is wrong with a layer, a line each."""
    with tempfile.TemporaryDirectory() as directory:
        wrong = []
        for machine in MACHINES:
            for feature in (False, True):
                wrong += _configuration(f"{directory}/{machine}-{feature}", machine, feature, layer)
        return wrong + _inert(directory, layer) + _versions(directory, layer)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--layer", type=pathlib.Path, default=layers.LAYER)
    logging.disable(logging.DEBUG)
    layer = parser.parse_args().layer.resolve()
    try:
        wrong = problems(layer)
    except Exception as error:  # BitBake raises what a recipe raises.
        told = logging.getLogger("BitBake").handlers[0].warnings
        wrong = [*told, f"{type(error).__name__}: {error}"]
    for line in dict.fromkeys(wrong):
        print(f"yocto: {line}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
