"""Which OTAD_ variables exist, and what a misspelled one was probably meant to be."""

import difflib

PREFIX = "OTAD_"
ROLE_PREFIX = "OTAD_IMAGE_"

# What can be said of a role beside its recipe: OTAD_IMAGE_rootfs[fstype] = "ext4".
ROLE_FLAGS = {
    "fstype": "image type, the end of the file's name; default OTAD_SLOT_FSTYPE",
    "file": "name of the file in the deploy directory, where it is no image recipe's",
    "task": "task that deploys it; default do_image_complete, with [file] do_deploy",
    "slot-size-mib": "size of the role's slot in MiB; default OTAD_SLOT_SIZE_MIB",
}
# Flags that BitBake and documentation tools put on any variable.
COMMON_FLAGS = {"doc", "defaultval", "vardeps", "vardepsexclude", "vardepvalue", "export", "unexport", "type"}


def _guess(name, known):
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""


def complaints(d):
    """Says of every OTAD_ variable that nothing reads what is wrong with it, one sentence each."""
    names = sorted(name for name in d.keys() if name.startswith(PREFIX))
    bare = {name.split(":")[0] for name in names}
    known = {name for name in bare if d.getVarFlag(name, "doc")}
    roles = {ROLE_PREFIX + role for role in (d.getVar("OTAD_BUNDLE_ROLES") or "").split()}
    found = []
    for name in sorted(bare - known):
        if not name.startswith(ROLE_PREFIX):
            found.append(f"{name} is no variable of meta-otad, so nothing reads it{_guess(name, known)}")
            continue
        if roles and name not in roles and d.getVar("OTAD_BUNDLE_IS_HERE"):
            found.append(f"{name} is set, but OTAD_BUNDLE_ROLES names no such role{_guess(name, roles)}")
        for flag in sorted(set(d.getVarFlags(name) or {}) - set(ROLE_FLAGS) - COMMON_FLAGS):
            if not flag.startswith("_"):
                found.append(f"{name}[{flag}] is read by nothing{_guess(flag, ROLE_FLAGS)}; "
                             f"there are: {', '.join(ROLE_FLAGS)}")
    return found
