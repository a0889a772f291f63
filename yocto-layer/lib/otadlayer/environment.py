"""The boot loader's side from one source: environment, U-Boot configuration, fw_env.config and boot script.

The text of a scheme is the one that docs/boot-integration.md shows and the emulated board boots; a board adds how its
kernel is loaded. Texts are U-Boot's: `name=value` lines, `#` comments, a backslash joins a line with the next one.
"""

import re

SCHEMES = ("bootcount", "boot-order")
# The mark of an environment that was compiled in; otad rebuilds what carries it.
MARK = "otad_env"
# The limit that the texts of both schemes are written for.
LIMIT_IN_TEXT = 3
REDUNDANT_OPTIONS = ("CONFIG_SYS_REDUNDAND_ENVIRONMENT", "CONFIG_ENV_REDUNDANT")


class Mistake(Exception):
    """A setting that cannot work; the sentence names the variable and what to do."""


def _joined(text):
    lines, open_line = [], None
    for line in text.splitlines():
        if open_line is None and (not line.strip() or line.startswith("#")):
            continue
        whole = line if open_line is None else open_line + line.lstrip()
        open_line = whole[:-1] if whole.endswith("\\") else None
        if open_line is None:
            lines.append(whole)
    if open_line is not None:
        lines.append(open_line)
    return lines


def compiled_in(board, scheme_text, scheme, limit):
    """The text for CONFIG_DEFAULT_ENV_FILE as a dictionary, in its order."""
    if scheme not in SCHEMES:
        raise Mistake(f"OTAD_BOOT_SCHEME is {scheme!r}; there are {' and '.join(SCHEMES)}")
    if not 1 <= limit <= 9:
        raise Mistake(f"OTAD_BOOT_LIMIT is {limit}; 1 to 9 are possible")
    if scheme == "boot-order" and limit != LIMIT_IN_TEXT:
        raise Mistake(f"OTAD_BOOT_LIMIT is {limit}, but the script of boot-order counts to {LIMIT_IN_TEXT}: leave it at "
                      f"{LIMIT_IN_TEXT}, or replace boot-order.env in a bbappend of otad-boot-environment")
    variables = {}
    for line in _joined(board) + _joined(scheme_text):
        name, equals, value = line.partition("=")
        if not equals or not name or name != name.strip():
            raise Mistake(f"no `name=value` line of an environment: {line!r}")
        if name in variables:
            raise Mistake(f"{name} is defined twice; the board's text must leave the scheme's names alone")
        variables[name] = value
    for name in ("otad_load_a", "otad_load_b", "otad_args_a", "otad_args_b", "otad_start", "bootcmd"):
        if name not in variables:
            raise Mistake(f"the board's text does not define {name}: see docs/boot-integration.md")
    if "bootlimit" in variables:
        variables["bootlimit"] = str(limit)
    return variables


def rebuilt(variables):
    """What otad rebuilds a lost environment from: the compiled-in text without the mark of being that."""
    return {name: value for name, value in variables.items() if name != MARK}


def factory(variables, scheme, limit):
    """The environment of a device that leaves the factory with slot a (the first row of the scheme's table)."""
    row = {"otad_slot": "a", "otad_a_ok": "1", "otad_b_ok": "0", "upgrade_available": "0", "bootcount": "0",
           "bootlimit": str(limit)}
    if scheme == "boot-order":
        row = {"BOOT_ORDER": "A", "BOOT_A_LEFT": str(limit), "BOOT_B_LEFT": "0"}
    return {**rebuilt(variables), **row}


def text_of(variables):
    """As `name=value` lines."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def places(size, first, second):
    """The three numbers of the environment, from any spelling of a number that Python knows; refuses an overlap."""
    try:
        size, first, second = (int(number, 0) for number in (size, first, second))
    except ValueError as error:
        raise Mistake(f"OTAD_ENV_SIZE, OTAD_ENV_OFFSET and OTAD_ENV_OFFSET_REDUNDANT are numbers: {error}") from error
    if size < 0x1000 or first < 0 or second < 0 or abs(first - second) < size:
        raise Mistake(f"two copies of {size:#x} bytes at {first:#x} and {second:#x} do not fit: each needs at least "
                      "0x1000 bytes of its own (OTAD_ENV_SIZE, OTAD_ENV_OFFSET, OTAD_ENV_OFFSET_REDUNDANT)")
    return size, first, second


def fw_env_config(device, numbers):
    """/etc/fw_env.config: a line per copy."""
    size, *offsets = numbers
    return "".join(f"{device}  {offset:#x}  {size:#x}\n" for offset in offsets)


def u_boot_fragment(board, scheme, numbers):
    """U-Boot's configuration: the board's and the scheme's lines, and at the end the numbers, which win."""
    size, first, second = numbers
    # U-Boot renamed the first option to the second; Kconfig drops the name that it does not know.
    lines = [f"{option}=y" for option in REDUNDANT_OPTIONS]
    lines += [f"CONFIG_ENV_SIZE={size:#x}", f"CONFIG_ENV_OFFSET={first:#x}", f"CONFIG_ENV_OFFSET_REDUND={second:#x}"]
    own = {line.partition("=")[0] for line in lines}
    kept = [line for line in (board + "\n" + scheme).splitlines() if line and line.partition("=")[0] not in own]
    return "\n".join(kept + lines) + "\n"


def not_taken(fragment, configuration):
    """The lines of a fragment that the finished .config does not have: an option of another name, or one that lacks a
    dependency. Without them the device would lose its environment or never count a boot."""
    have = set(configuration.splitlines())
    missing = []
    for line in fragment.splitlines():
        unset = re.fullmatch(r"# (CONFIG_\w+) is not set", line)
        if unset:
            if any(item.startswith(f"{unset[1]}=") for item in have):
                missing.append(line)
        elif line.startswith("CONFIG_") and line not in have and line.partition("=")[0] not in REDUNDANT_OPTIONS:
            missing.append(line)
    if not any(f"{option}=y" in have for option in REDUNDANT_OPTIONS):
        missing.append(f"{' or '.join(REDUNDANT_OPTIONS)}=y")
    return missing


def boot_script(variables):
    """The same scheme as a script for `mkimage -T script`: for a U-Boot whose compiled-in environment cannot be
    replaced but which runs a boot.scr. Only boot-order counts without U-Boot's help, so only that one has a script."""
    lines = ["# Made by the recipe otad-boot-environment; runs at every boot, before anything is counted.",
             'if test -z "${BOOT_ORDER}"; then setenv otad_env default; fi']
    for name, value in variables.items():
        if name in (MARK, "bootcmd"):
            continue
        if "'" in value:
            raise Mistake(f"{name} contains an apostrophe, which a script cannot quote")
        lines.append(f"setenv {name} '{value}'")
    return "\n".join(lines + ["run otad_boot"]) + "\n"


def medium(copy, numbers):
    """A whole medium with both copies in their places, as long as the next power of two: what QEMU takes for a card."""
    size, *offsets = numbers
    if len(copy) != size:
        raise Mistake(f"the environment is {len(copy):#x} bytes, OTAD_ENV_SIZE is {size:#x}")
    length = 1 << (max(offsets) + size - 1).bit_length()
    image = bytearray(length)
    for offset in offsets:
        image[offset:offset + size] = copy
    return bytes(image)
