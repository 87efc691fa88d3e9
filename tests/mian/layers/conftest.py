"""Layers are compared in float64. That the compiled operators' float32 is no further from it than rounding explains is what the tests of
``tests/mian/kernels`` and ``tests/mian/models`` say.
"""

import pytest


@pytest.fixture(autouse=True)
def exact(float64: None) -> None:
    """The same for all tests of this folder."""
