"""A token is named by its URI, and the PIN is not on a command line."""

import pathlib
import tempfile
import unittest

import tests  # noqa: F401
from otadlayer import signing


class Token(unittest.TestCase):
    def test_every_part_of_the_uri_counts(self):
        with tempfile.TemporaryDirectory() as directory:
            pin = pathlib.Path(directory, "pin")
            pin.write_text("1234\n")
            uri = f"pkcs11:token=my%20token;id=%01%a2?module-path=/lib/x.so&pin-source=file:{pin}"
            self.assertEqual(signing.token_command(uri),
                             ("pkcs11-tool --module /lib/x.so --sign --mechanism EDDSA --token-label 'my token' --id 01a2 "
                              "--login --pin env:OTAD_PIN", {"OTAD_PIN": "1234"}))

    def test_mistakes(self):
        for uri, word in [("pkcs11:token=x;object=y", "must name module-path"), ("pkcs11:token=x?module-path=/x", "object or id"),
                          ("pkcs11:object=x?module-path=/x&pin-source=/nowhere", "cannot read the PIN")]:
            with self.assertRaisesRegex(signing.Mistake, word):
                signing.token_command(uri)


if __name__ == "__main__":
    unittest.main()
