#!/usr/bin/env python3
"""disks.py: checks the kickstart files and the kas files, which BitBake does not read.

A disk is described in four places: its kickstart file, the board's environment (which partition a kernel is loaded from), the variables
of the environment's place, and the device of the data partition. They have to be about the same disk.
"""

import argparse
import importlib.util
import json
import pathlib
import re
import shlex
import tempfile

import jsonschema
import yaml

import layers

MACHINES = {"qemuarm64": "virtio 0", "raspberrypi4-64": "mmc 0"}
MIB = 1024 * 1024
SUFFIX = {"K": 1024, "M": MIB}
# Options of wic that the files may use.
OPTIONS = ("source", "sourceparams", "fixed-size", "align", "part-name", "fstype", "label", "offset")


def parts(text):
    """The `part` lines of an expanded kickstart file."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("mount", nargs="?")
    for option in OPTIONS:
        parser.add_argument(f"--{option}")
    for flag in ("no-table", "active"):
        parser.add_argument(f"--{flag}", action="store_true")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [parser.parse_args(words[1:]) for words in lines if words and words[0] == "part"]


def size(text):
    """Bytes of a wic size."""
    return int(text[:-1]) * SUFFIX[text[-1]]


def disk(directory, machine):
    """What is wrong with the disk of a machine."""
    local = f'OTAD_SEQUENCE = "1"\nrequire conf/include/otad-{machine}.inc\n'
    parsed = layers.Layers(directory, local)
    d = parsed.of("otad-image-minimal")
    path = layers.bb.utils.which(d.getVar("WKS_SEARCH_PATH"), d.getVar("WKS_FILE"))
    text = d.expand(pathlib.Path(path).read_text())
    wrong = [f"nothing expands {name}" for name in re.findall(r"\$\{[^}]*\}", text)]
    lines = parts(text)
    table = [line for line in lines if not line.no_table]
    number = {line.part_name: index + 1 for index, line in enumerate(table)}
    slot = int(d.getVar("OTAD_SLOT_SIZE_MIB")) * MIB
    for name in ("rootfs-a", "rootfs-b"):
        if size(table[number[name] - 1].fixed_size) != slot:
            wrong.append(f"{name} is {table[number[name] - 1].fixed_size}, OTAD_SLOT_SIZE_MIB says {slot // MIB}M")
    board = (layers.LAYER / f"recipes-bsp/otad-boot-environment/files/{machine}/otad-board.env").read_text()
    for name in "ab":
        loads = re.search(f"^otad_load_{name}=(.*)$", board, re.M)[1]
        wanted = f"{MACHINES[machine]}:{number[f'rootfs-{name}']} "
        if set(re.findall(r"load (\w+ \S+ )", loads)) != {wanted}:
            wrong.append(f"otad_load_{name} does not load from {wanted}alone: {loads}")
        if f"root=PARTLABEL=rootfs-{name} " not in re.search(f"^otad_args_{name}=(.*)$", board, re.M)[1]:
            wrong.append(f"otad_args_{name} names another root")
    if table[-1].part_name != "data" or int(re.search(r"\d+$", d.getVar("OTAD_DATA_DEVICE"))[0]) != len(table):
        wrong.append(f"data must be the last partition and OTAD_DATA_DEVICE it, not {d.getVar('OTAD_DATA_DEVICE')}")
    hidden = [(size(line.offset), size(line.fixed_size)) for line in lines if line.no_table]
    copies = [(int(d.getVar(name), 0), int(d.getVar("OTAD_ENV_SIZE"), 0)) for name in ("OTAD_ENV_OFFSET", "OTAD_ENV_OFFSET_REDUNDANT")]
    if hidden and (hidden != copies or max(map(sum, hidden)) > int(table[0].align) * 1024):
        wrong.append(f"the environment is at {hidden} on the disk, OTAD_ENV_* says {copies}, the first partition comes after that")
    return [f"{pathlib.Path(path).name}: {line}" for line in wrong]


def settings(path):
    """The lines of local.conf that a kas file makes, with those of its includes before them."""
    content = yaml.safe_load(path.read_text())
    before = "".join(settings(path.parent / name) for name in content["header"].get("includes", []))
    return before + "".join(content.get("local_conf_header", {}).values())


def kas(path, schema, directory):
    """What is wrong with a kas file."""
    content = yaml.safe_load(path.read_text())
    try:
        jsonschema.validate(content, schema)
    except jsonschema.ValidationError as error:
        return [f"{path.name}: {error.message}"]
    wrong = [f"{path.name}: no {name}" for name in content["header"].get("includes", []) if not (path.parent / name).exists()]
    for name in (content.get("repos") or {}).get("otad", {}).get("layers", {}):
        if not (layers.LAYER.parent / name / "conf/layer.conf").exists():
            wrong.append(f"{path.name}: {name} is no layer of this repository")
    for name in re.findall(r"^ *require (\S+)$", path.read_text(), re.M):
        if not (layers.LAYER / name).exists():
            wrong.append(f"{path.name}: no {name}")
    if wrong or "machine" not in content:
        return wrong
    parsed = layers.Layers(directory, settings(path))
    parsed.start()
    if parsed.data.getVar("MACHINE") != content["machine"]:
        wrong.append(f"{path.name}: the machine is {content['machine']}, its include makes it {parsed.data.getVar('MACHINE')}")
    for name in content.get("target", []):
        parsed.of(name)
    return wrong + [f"{path.name}: {line}" for line in parsed.told.warnings]


def main():
    schema = pathlib.Path(importlib.util.find_spec("kas").origin).with_name("schema-kas.json")
    wrong = []
    with tempfile.TemporaryDirectory() as directory:
        for machine in MACHINES:
            wrong += disk(f"{directory}/{machine}", machine)
        for path in sorted((layers.LAYER / "kas").glob("*.yml")):
            wrong += kas(path, json.loads(schema.read_text()), f"{directory}/{path.stem}")
    print("\n".join(wrong), end="\n" if wrong else "")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
