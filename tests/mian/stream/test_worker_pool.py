import threading
import time

import pytest
from petastorm.workers_pool import EmptyResultError

from mian.stream.worker_pool import OrderedPool, OrderedVentilator


class Sleeper:
    """Publishes its number, later the smaller it is; ``bad`` raises."""

    def __init__(self, worker_id, publish, args):
        self.publish = publish
        self.log = args

    def process(self, number, bad=False):
        self.log.append(number)
        if bad:
            raise RuntimeError(f"number {number} is bad")
        time.sleep(0.02 / (number + 1))
        self.publish(number)


def started(items, workers=3, ahead=5):
    pool = OrderedPool(workers)
    log = []
    pool.start(Sleeper, log, OrderedVentilator(pool.ventilate, items, ahead))
    return pool, log


def drained(pool):
    results = []
    while True:
        try:
            results.append(pool.get_results())
        except EmptyResultError:
            return results


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_results_come_in_the_order_of_the_items(workers):
    pool, _ = started([{"number": number} for number in range(12)], workers)
    assert drained(pool) == list(range(12))
    pool.stop()
    pool.join()


def test_none_is_lost_with_more_workers_than_items():
    for _ in range(50):
        pool, _ = started([{"number": number} for number in range(2)], workers=10, ahead=12)
        assert drained(pool) == [0, 1]
        pool.stop()
        pool.join()


def test_no_items():
    pool, _ = started([])
    assert drained(pool) == []
    pool.stop()
    pool.join()


def test_no_more_is_begun_than_allowed_ahead_of_the_consumer():
    pool, log = started([{"number": number} for number in range(20)], ahead=4)
    time.sleep(0.2)
    assert set(log) <= {0, 1, 2, 3}
    assert pool.diagnostics == {"output_queue_size": 4}
    pool.get_results()
    time.sleep(0.2)
    assert set(log) <= {0, 1, 2, 3, 4}
    pool.stop()
    pool.join()


def test_an_error_is_raised_in_its_turn_and_ends_the_pool():
    before = threading.active_count()
    pool, log = started([{"number": number, "bad": number == 2} for number in range(40)])
    assert [pool.get_results(), pool.get_results()] == [0, 1]
    with pytest.raises(RuntimeError, match="number 2 is bad"):
        pool.get_results()
    assert threading.active_count() == before
    assert len(log) < 40


def test_stopping_half_way_begins_nothing_more():
    before = threading.active_count()
    pool, log = started([{"number": number} for number in range(1000)])
    pool.get_results()
    pool.stop()
    pool.join()
    assert threading.active_count() == before
    assert len(log) <= 6
