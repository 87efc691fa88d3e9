"""Ends a test that hangs."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class _TooLongError(BaseException):
    """No Exception: libraries catch those, and try again."""


@contextmanager
def seconds(limit: int) -> Iterator[None]:
    """Fails where something takes longer: it hangs, or tries again and again."""

    def ring(number: int, frame: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(limit)
    try:
        yield
    except _TooLongError:
        raise AssertionError(f"not done within {limit} s") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
