"""How the ranks of an elastic training find one another anew.

Horovod's own way asks the launcher for a place among the ranks and connects at once; where a rank that was to come dies before it has
connected (it takes it seconds to start), all others abort. Here they first wait until each is there, and ask again where one is not.
"""

from __future__ import annotations

import logging
import os
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mian.distributed.collectives import RankError

log = logging.getLogger(__name__)

#: What the launcher answers, in this order, and where Horovod reads it.
PLACE = (
    "HOROVOD_RANK",
    "HOROVOD_SIZE",
    "HOROVOD_LOCAL_RANK",
    "HOROVOD_LOCAL_SIZE",
    "HOROVOD_CROSS_RANK",
    "HOROVOD_CROSS_SIZE",
)


class Rendezvous:
    """The launcher's key-value store, as one process of an elastic training uses it.

    Args:
        seconds: how long it waits for the other ranks to be there, before it asks the launcher for another place.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        environment = os.environ
        self._store = f"http://{environment['HOROVOD_GLOO_RENDEZVOUS_ADDR']}:{environment['HOROVOD_GLOO_RENDEZVOUS_PORT']}"
        self._slot = f"{environment['HOROVOD_HOSTNAME']}:{environment['HOROVOD_LOCAL_RANK']}"

    def meet(self, *, again: bool) -> None:
        """Take a place among the ranks, for Horovod to read in the environment, when all other ranks have taken theirs.

        Args:
            again: ask the launcher for another place than the one that the process was started with; it answers when all ranks that are
                left have asked.

        Raises:
            RankError: the launcher has no place for this process.
        """
        while True:
            if again:
                self._ask_for_place()
            if self._all_there(int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"])):
                return
            log.warning("%s: not all ranks came within %s s; asking for the ranks that are left", self._slot, self._seconds)
            again = True

    def _ask_for_place(self) -> None:
        with urlopen(f"{self._store}/rank_and_size/{self._slot}") as answer:
            place = answer.read().decode().split(",")
        if int(place[0]) < 0:
            raise RankError(f"{self._slot} is no longer among the hosts of the training")
        os.environ.update(zip(PLACE, place, strict=True))

    def _all_there(self, rank: int, size: int) -> bool:
        """Whether all ranks come; the launcher forgets who was there when it gives out new places."""
        self._request("PUT", rank)
        deadline = time.monotonic() + self._seconds
        missing = set(range(size))
        while missing := {other for other in missing if not self._request("GET", other)}:
            if time.monotonic() > deadline:
                self._request("DELETE", rank)  # who comes now is not to count on this process
                return False
            time.sleep(0.1)
        return True

    def _request(self, method: str, rank: int) -> bool:
        request = Request(f"{self._store}/there/{rank}", data=b"here" if method == "PUT" else None, method=method)
        try:
            with urlopen(request):
                return True
        except HTTPError as error:
            if error.code != 404:
                raise
            return False
