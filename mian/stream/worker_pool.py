"""A thread pool in Petastorm's protocol that returns results in the order in which the work was handed out.

Petastorm's own pool returns them as they finish, so that a seed decides the order only with one worker, and asks "is all
done?" in one thread while another still hands out. Here the consumer's own thread hands out the work, a bounded number of row
groups ahead of itself, and takes the results from a queue of futures: there is nothing to race with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from petastorm.workers_pool import EmptyResultError
from petastorm.workers_pool.ventilator import Ventilator


class OrderedVentilator(Ventilator):  # type: ignore[misc]  # petastorm has no types
    """Hands out items in order, keeping at most ``ahead`` of them handed out and not yet consumed: the bound on memory."""

    def __init__(self, ventilate: Callable[..., None], items: Sequence[dict[str, Any]], ahead: int) -> None:
        super().__init__(ventilate)
        self._remaining = deque(items)
        self._ahead = ahead

    def start(self) -> None:
        """Hand out the first items."""
        for _ in range(self._ahead):
            self.processed_item()

    def processed_item(self) -> None:
        """An item was consumed: hand out the next."""
        if self._remaining:
            self._ventilate_fn(**self._remaining.popleft())

    def completed(self) -> bool:
        """Whether all items are handed out."""
        return not self._remaining

    def stop(self) -> None:
        """Hand out no more items to the threads."""
        self._remaining.clear()


class OrderedPool:
    """Runs Petastorm workers in threads; see the module.

    Args:
        workers_count: threads.
    """

    def __init__(self, workers_count: int) -> None:
        self.workers_count = workers_count
        self._results: deque[Future[list[Any]]] = deque()

    def start(self, worker_class: Callable[..., Any], worker_args: Any = None, ventilator: Any = None) -> None:
        """Start; called by Petastorm's reader."""
        self._executor = ThreadPoolExecutor(self.workers_count, thread_name_prefix="row-groups")
        self._worker_class = worker_class
        self._worker_args = worker_args
        self._ventilator = ventilator
        ventilator.start()

    def ventilate(self, **item: Any) -> None:
        """Take an item of work; it becomes the arguments of a worker's ``process``."""
        self._results.append(self._executor.submit(self._process, item))

    def get_results(self) -> Any:
        """The next result, in the order of the items.

        Raises:
            EmptyResultError: there are no more.
            Exception: what the worker raised; the pool has ended then.
        """
        while self._results:
            future = self._results.popleft()
            try:
                published = future.result()
            except BaseException:
                self.stop()
                self.join()
                raise
            self._ventilator.processed_item()
            if published:
                return published[0]
        raise EmptyResultError

    def stop(self) -> None:
        """Begin no more work. What has begun ends by itself: what comes after it may wait for it."""
        self._ventilator.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait until all threads have ended."""
        self._executor.shutdown(wait=True)
        self._results.clear()

    @property
    def diagnostics(self) -> dict[str, int]:
        """How many row groups are handed out and not yet consumed."""
        return {"output_queue_size": len(self._results)}

    def _process(self, item: dict[str, Any]) -> list[Any]:
        published: list[Any] = []
        # A worker for each item: what it publishes is then known to be that item's.
        self._worker_class(0, published.append, self._worker_args).process(**item)
        return published
