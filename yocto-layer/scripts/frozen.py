#!/usr/bin/env python3
"""frozen.py [--release] [PROGRAM...]: builds the native variant as BitBake would, from what the recipe lists and without a network.

The recipe's own SRC_URI goes through BitBake's fetcher: the sources beside the layer are copied, every crate of the list is checked
and unpacked. Then cargo runs in a network namespace of its own with the recipe's flags and that directory as its only source.
With PROGRAMs only these are built; every listed crate is resolved all the same. The crates come from cargo's cache, where `cargo
fetch` put them: the download from the registry is not part of this.
"""

import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import layers

SOURCES = layers.LAYER.parent


def _downloads(directory):
    """DL_DIR, filled from cargo's cache."""
    subprocess.run(["cargo", "fetch", "--locked", "--quiet"], cwd=SOURCES, check=True)
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    for crate in home.glob("registry/cache/*/*.crate"):
        if not (directory / crate.name).exists():
            os.symlink(crate, directory / crate.name)
            (directory / f"{crate.name}.done").touch()


def _configure(d, vendored):
    """The configuration that cargo_common.bbclass writes, as far as this build needs it."""
    home = pathlib.Path(d.getVar("CARGO_HOME"))
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(
        f'[source.bitbake]\ndirectory = "{vendored}"\n'
        '[source.crates-io]\nreplace-with = "bitbake"\nlocal-registry = "/nonexistent"\n'
        f'[build]\ntarget-dir = "{d.getVar("B")}/target"\n')
    return home


def main():
    release = "--release" in sys.argv[1:]
    programs = [word for word in sys.argv[1:] if word != "--release"]
    with tempfile.TemporaryDirectory() as top:
        downloads = pathlib.Path(top, "downloads")
        downloads.mkdir()
        _downloads(downloads)
        d = layers.Layers(f"{top}/build", f'DL_DIR = "{downloads}"\nBB_NO_NETWORK = "1"\n').of("otad", "native")
        if d.getVar("__SKIPPED"):
            raise SystemExit(f"frozen: {d.getVar('__SKIPPED')}")
        for task in ("do_fetch", "do_unpack"):
            layers.run(d, task)
        vendored = next(pathlib.Path(d.getVar("UNPACKDIR")).glob("**/bitbake"))
        listed = d.getVar("SRC_URI").count("crate://")
        print(f"{listed} crates fetched and unpacked to {len(list(vendored.iterdir()))} directories", flush=True)
        if programs:
            d.setVar("OTAD_PROGRAMS", " ".join(programs))
        flags = shlex.split(d.getVar("CARGO_BUILD_FLAGS"))
        flags = [flag for flag in flags if flag != "-v" and (release or flag != "--release")]
        command = ["unshare", "--map-root-user", "--net", "cargo", "build", *flags]
        print(shlex.join(command[3:]), flush=True)
        home = _configure(d, vendored)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_")}
        subprocess.run(command, cwd=d.getVar("S"), env={**environment, "CARGO_HOME": str(home)}, check=True)
        made = pathlib.Path(d.getVar("B"), "target", d.getVar("RUST_HOST_SYS"), "release" if release else "debug")
        for program in d.getVar("OTAD_PROGRAMS").split():
            subprocess.run([made / program, "--help"], check=True, stdout=subprocess.DEVNULL)
            print(f"{program}: {os.path.getsize(made / program)} bytes, runs")


if __name__ == "__main__":
    main()
