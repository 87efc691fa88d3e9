"""The version of the code."""

import re

from mian.fingerprint import package_fingerprint


def test_the_code_has_a_fingerprint() -> None:
    assert re.fullmatch("[0-9a-f]{64}", package_fingerprint("mian"))
    assert package_fingerprint("mian") == package_fingerprint("mian")
