"""Exchanges between ranks: how long they take, and who is missing where one does not end."""

from __future__ import annotations

import http.client
import math
import os
import threading
import time
import weakref
from types import TracebackType

import horovod.torch as hvd
from horovod.common.exceptions import HorovodInternalError
from torch.autograd.profiler import record_function

_ROLL_CALL_SECONDS = 2.0
_ANSWER_SECONDS = 2.0


def gloo_timeout() -> float:
    """For how many seconds Gloo waits for a process that does not answer: what ``horovodrun --gloo-timeout-seconds`` says, or 30."""
    return float(os.environ.get("HOROVOD_GLOO_TIMEOUT_SECONDS", 30))


class ExchangeWatchdog:
    """Times the exchanges of this rank, each in a ``with`` block, and ends one that lasts too long.

    Gloo has a time-out of its own for a process that is frozen, or a host that is cut off. But a rank that is stuck in other code still
    answers Gloo, from Horovod's thread, and the other ranks would wait for it forever. Horovod 0.28.1 does not find such a rank under
    Gloo, because the list of ranks that its stall check looks through stays empty there. So a thread of this class looks at the clock.

    Args:
        rank: the number of this rank.
        size: how many ranks there are.

    Attributes:
        limit: how many seconds an exchange may last.
        seconds: how many seconds were spent in exchanges so far.
        waited: how many whole seconds the failed exchange lasted, if that was about as long as an exchange may; else 0.
        ended: whether the thread ended an exchange.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.limit = math.inf
        self.seconds = 0.0
        self.waited = 0
        self.ended = False
        self._rank = rank
        self._size = size
        self._began: float | None = None
        if size > 1:
            threading.Thread(target=_watchdog_loop, args=(weakref.ref(self),), name="exchanges", daemon=True).start()

    def __enter__(self) -> None:
        self._name = record_function("exchange")
        self._name.__enter__()  # type: ignore[no-untyped-call]
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        lasted = self.lasts()
        self.seconds += lasted
        self._began = None
        self._name.__exit__(kind, error, traceback)
        if self.ended or isinstance(error, HorovodInternalError):
            self.waited = (
                round(lasted) if lasted > 0.9 * min(gloo_timeout(), self.limit) else 0
            )  # Gloo's clock may have begun before
            self._answer()
        if self.ended and error is not None:  # then Horovod says that it does not know what it was to wait for
            raise HorovodInternalError("an exchange lasted too long") from error

    def lasts(self) -> float:
        """For how many seconds this rank has been in an exchange; 0 where it is in none."""
        began = self._began
        return 0.0 if began is None else time.perf_counter() - began

    def missing(self) -> list[int] | None:
        """After an exchange that failed: the ranks for which it did not fail, because they never came.

        Returns:
            On the first rank for which it failed; None on the others, and where the launcher cannot be asked.
        """
        time.sleep(_ROLL_CALL_SECONDS)  # the others come to their errors within that
        try:
            if any(self._answered(rank) for rank in range(self._rank)):
                return None
            return [rank for rank in range(self._size) if rank != self._rank and not self._answered(rank)]
        except (OSError, http.client.HTTPException):
            return None

    def _answer(self) -> None:
        """Tell the others, by the launcher's store of keys and values, that this rank is there."""
        try:
            _launcher("PUT", self._rank)
        except (OSError, http.client.HTTPException):
            return  # then nobody can ask either

    def _answered(self, rank: int) -> bool:
        return _launcher("GET", rank) == http.client.OK


def _launcher(method: str, rank: int) -> int:
    """Put down or ask for a rank's answer; the status.

    Raises:
        OSError, HTTPException: there is no launcher, or it does not answer.
    """
    address, port = (os.environ.get(f"HOROVOD_GLOO_RENDEZVOUS_{name}", "") for name in ("ADDR", "PORT"))
    if not port:
        raise OSError("not started by horovodrun")
    connection = http.client.HTTPConnection(address, int(port), timeout=_ANSWER_SECONDS)
    try:
        connection.request(method, f"/roll-call/{rank}", body=b"here" if method == "PUT" else None)
        return connection.getresponse().status
    finally:
        connection.close()


def _watchdog_loop(reference: weakref.ref[ExchangeWatchdog]) -> None:
    """Until the watch is gone with its ranks."""
    while (watch := reference()) is not None:
        if watch.lasts() > watch.limit:
            watch.ended = True
            hvd.shutdown()  # the exchange ends in an error, here and on every rank that waits
            return
        interval = min(5.0, watch.limit / 20)
        del watch
        time.sleep(interval)
