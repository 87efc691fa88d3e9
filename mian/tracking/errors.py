"""What can be wrong with the record of a training."""

from __future__ import annotations

import re

HIDDEN = "***"
"""In the place of a password."""
_PASSWORD = re.compile(r"(\w://[^\s:/@]*:)[^\s/@]+@")


class TrackingError(ValueError):
    """A tracking store, experiment or run that can never take the record, or a record that cannot be read."""


class ArtifactStoreError(RuntimeError):
    """The store of a tracking server's artifacts does not answer, or refuses a file."""


def hide_passwords(text: str) -> str:
    """A text with ``***`` in the place of the password of each URL in it."""
    return _PASSWORD.sub(rf"\g<1>{HIDDEN}@", text)
