"""Forward and backward pass in one piece, for a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mian.execution.device_batch import DeviceBatch, MemoryLayout
from mian.optim.optimizer import Optimizer, RowGradients

log = logging.getLogger(__name__)

MOST = 32
"""So many layouts have a graph."""


@dataclass(frozen=True)
class _Graph:
    memory: torch.Tensor
    graph: torch.cuda.CUDAGraph
    logloss: torch.Tensor
    table_gradients: dict[str, list[RowGradients]]


class StepGraphs:
    """Runs a pass as the CUDA graph of its batch's layout: a GPU gets all its operators at once, not one after the other from Python.

    The first batch of a layout runs as it would without; when a second one comes, what it does is recorded.

    Args:
        run: forward and backward; gives the logloss. Between batches of one layout it does the same, and waits for no value.
        optimizer: gets the gradients.
    """

    def __init__(self, run: Callable[[DeviceBatch], torch.Tensor], optimizer: Optimizer) -> None:
        self._run = run
        self._optimizer = optimizer
        self._seen: set[MemoryLayout] = set()
        self._graphs: dict[MemoryLayout, _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._works = True

    def __call__(self, batch: DeviceBatch) -> torch.Tensor:
        """Forward and backward; the logloss, which the next call overwrites."""
        if (
            batch.memory_layout not in self._graphs
            and self._works
            and batch.memory_layout in self._seen
            and len(self._graphs) < MOST
        ):
            self._record(batch)
        graph = self._graphs.get(batch.memory_layout)
        if graph is None:
            self._seen.add(batch.memory_layout)
            return self._run(batch)
        graph.memory.copy_(batch.memory)
        graph.graph.replay()
        self._optimizer.pass_gradients = {name: list(passes) for name, passes in graph.table_gradients.items()}
        return graph.logloss

    def _record(self, batch: DeviceBatch) -> None:
        """Record what a batch of this layout does; nothing is computed yet."""
        memory, graph = batch.memory.clone(), torch.cuda.CUDAGraph()
        try:
            # other threads go on sending batches
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                logloss = self._run(batch.at(memory))
            self._graphs[batch.memory_layout] = _Graph(memory, graph, logloss, self._optimizer.pass_gradients)
        except RuntimeError as error:
            self._works = False
            log.warning(
                "this model's steps cannot be recorded as CUDA graphs (%s), and run without; its supports_cuda_graphs should be False",
                " ".join(str(error).split())[:300],
            )
        finally:
            self._optimizer.begin()  # what recording has left is no step's
