"""From the variables of a bundle recipe to the command lines of otactl, with every mistake that can be found before."""

import os
import re

from . import variables

# https://semver.org/, without the parts that only compare.
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
ROLE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
SEQUENCE_MAX = 2**63 - 1
MIB = 1024 * 1024


class Mistake(Exception):
    """A setting or an image that no bundle can be made of; the sentence says which and what to do."""


class Image:
    """One role of the bundle: which recipe makes its image, which file that is, and how much its slot holds."""

    def __init__(self, d, role):
        name = variables.ROLE_PREFIX + role
        flag = lambda key: d.getVarFlag(name, key) or ""  # noqa: E731
        if not ROLE.fullmatch(role):
            raise Mistake(f"OTAD_BUNDLE_ROLES names {role!r}; a role is 1 to 32 of a-z, 0-9 and -")
        self.role = role
        self.recipe = d.getVar(name) or ""
        if not self.recipe:
            raise Mistake(f"{name} is not set; give it the recipe that makes the image of the role {role}")
        self.task = flag("task") or ("do_deploy" if flag("file") else "do_image_complete")
        fstype = flag("fstype") or d.getVar("OTAD_SLOT_FSTYPE")
        suffix = (d.getVar("IMAGE_MACHINE_SUFFIX") or "") + (d.getVar("IMAGE_NAME_SUFFIX") or "")
        self.file = d.expand(flag("file")) or f"{self.recipe}{suffix}.{fstype}"
        size = d.expand(flag("slot-size-mib")) or d.getVar("OTAD_SLOT_SIZE_MIB")
        try:
            self.slot_bytes = int(size) * MIB
        except ValueError as error:
            raise Mistake(f"{name}[slot-size-mib] or OTAD_SLOT_SIZE_MIB is {size!r}, no number of MiB") from error

    def path(self, directory):
        """Path of the image, which exists and fits its slot."""
        path = os.path.join(directory, self.file)
        if not os.path.exists(path):
            raise Mistake(f"{self.recipe} deployed no {self.file} in {directory}: check "
                          f"{variables.ROLE_PREFIX}{self.role}[fstype] and its IMAGE_FSTYPES, or name the file in [file]")
        held = os.path.getsize(path)
        if held > self.slot_bytes:
            raise Mistake(f"{self.file} is {held} bytes, the slot of {self.role} holds {self.slot_bytes}: raise "
                          f"OTAD_SLOT_SIZE_MIB if the partitions of the devices are larger, else make the image smaller")
        return path


def images(d):
    """The images of the bundle."""
    roles = (d.getVar("OTAD_BUNDLE_ROLES") or "").split()
    if not roles:
        raise Mistake("OTAD_BUNDLE_ROLES is empty; a bundle has at least one image")
    if len(set(roles)) != len(roles):
        raise Mistake(f"OTAD_BUNDLE_ROLES names a role twice: {' '.join(roles)}")
    return [Image(d, role) for role in roles]


def version(d):
    """The version, as otactl and the image take it."""
    value = d.getVar("OTAD_VERSION") or ""
    if not VERSION.fullmatch(value):
        raise Mistake(f"OTAD_VERSION is {value!r}; a semantic version such as 2.1.0 is needed")
    return value


def sequence(d):
    """The release counter; there is no default, because a forgotten one would make a release that no device takes."""
    value = d.getVar("OTAD_SEQUENCE") or ""
    if not value.isdecimal() or int(value) > SEQUENCE_MAX:
        raise Mistake(f"OTAD_SEQUENCE is {value!r}; set a whole number that rises with every release, "
                      "for example the number of the build")
    return int(value)


def kernel(d):
    """The kernel that belongs to the image, or nothing: as OTAD_KERNEL has it."""
    value = d.getVar("OTAD_KERNEL") or ""
    if value != "modules":
        return value
    place = os.path.join(d.getVar("IMAGE_ROOTFS"), d.getVar("nonarch_base_libdir").lstrip("/"), "modules")
    releases = os.listdir(place) if os.path.isdir(place) else []
    return releases[0] if len(releases) == 1 else ""


def image_info(d):
    """/usr/lib/otad/image.toml: what a slot says of itself, and on which kernel it has to find itself."""
    about = f'version = "{version(d)}"\nsequence = {sequence(d)}\n'
    return about + (f'kernel = "{kernel(d)}"\n' if kernel(d) else "")


def create_command(d, directory, keys, out):
    """`otactl bundle create`, complete."""
    command = ["otactl", "bundle", "create", "--version", version(d), "--sequence", str(sequence(d))]
    compatible = (d.getVar("OTAD_COMPATIBLE") or "").split()
    if not compatible:
        raise Mistake("OTAD_COMPATIBLE is empty; name the hardware that the bundle is for")
    for name in compatible:
        command += ["--compatible", name]
    optional = {"--description": "OTAD_DESCRIPTION", "--compress": "OTAD_BUNDLE_COMPRESS", "--level": "OTAD_BUNDLE_LEVEL",
                "--chunking": "OTAD_BUNDLE_CHUNKING", "--chunk-size": "OTAD_BUNDLE_CHUNK_SIZE",
                "--threads": "BB_NUMBER_THREADS"}
    for option, name in optional.items():
        if d.getVar(name):
            command += [option, d.getVar(name)]
    for image in images(d):
        command += ["--image", f"{image.role}={image.path(directory)}"]
    for root in (d.getVar("OTAD_NEWER_ROOTS") or "").split():
        command += ["--with-root", root]
    for key in keys:
        command += ["--key", key]
    return command + ["--out", out]
