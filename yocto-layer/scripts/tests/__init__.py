"""Tests of the layer: python3 -m unittest discover -t yocto-layer/scripts yocto-layer/scripts/tests."""

import pathlib
import sys

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
LAYER = SCRIPTS.parent
SOURCES = LAYER.parent
sys.path[:0] = [str(SCRIPTS), str(LAYER / "lib")]
