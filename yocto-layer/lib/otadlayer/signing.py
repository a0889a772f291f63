"""From a key in a token to the command that signs with it.

`otactl --sign-command` gives a command the message on standard input and takes the 64 bytes of the signature from its standard
output; OpenSC's pkcs11-tool does just that.
"""

import shlex
import urllib.parse

SCHEME = "pkcs11:"
# The variable in which the PIN goes from here to pkcs11-tool: no command line shows it.
PIN_VARIABLE = "OTAD_PIN"


class Mistake(Exception):
    """Why there is no signature; the sentence says what to do."""


def token_command(uri):
    """The pkcs11-tool line of a pkcs11: URI (RFC 7512) with module-path, and what it adds to the environment."""
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    part = {}
    for item in [*path.split(";"), *query.split("&")]:
        name, _, value = item.partition("=")
        part[name] = urllib.parse.unquote(value, encoding="latin-1")
    if "module-path" not in part or not {"object", "id"} & part.keys():
        raise Mistake(f"{uri} must name module-path (the token's library) and object or id (the key)")
    command = ["pkcs11-tool", "--module", part["module-path"], "--sign", "--mechanism", "EDDSA"]
    if "token" in part:
        command += ["--token-label", part["token"]]
    command += ["--label", part["object"]] if "object" in part else ["--id", part["id"].encode("latin-1").hex()]
    added = {}
    if "pin-source" in part:
        source = part["pin-source"].removeprefix("file:")
        try:
            with open(source, encoding="utf-8") as file:
                added[PIN_VARIABLE] = file.readline().strip()
        except OSError as error:
            raise Mistake(f"{uri}: cannot read the PIN: {error}") from error
        command += ["--login", "--pin", f"env:{PIN_VARIABLE}"]
    return shlex.join(command), added
