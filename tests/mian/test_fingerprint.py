"""The version of the code."""

import re

from mian.fingerprint import code_fingerprint


def test_the_code_has_a_fingerprint() -> None:
    assert re.fullmatch("[0-9a-f]{64}", code_fingerprint())
    assert code_fingerprint() == code_fingerprint()
