"""Whether the embedding tables of a training fit, before any is made."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from mian.config import TrainConfig
from mian.contract import Contract
from mian.models.registry import model_options

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_GIB = 2**30


class TableMemoryError(ValueError):
    """Embedding tables are larger than the memory that they have to lie in: which, how large, what to do."""


def refuse_large_tables(
    config: TrainConfig, contract: Contract, ranks: int, local_ranks: int, device: torch.device, memory: int | None = None
) -> None:
    """Refuse a training whose tables cannot fit into this machine's memory, or its GPU's.

    What is counted is a lower bound: float32 weights of each vocabulary's rows, and what the optimizer remembers of them.

    Args:
        config: the settings.
        contract: what the samples are.
        ranks: all of them.
        local_ranks: those on this machine.
        device: where this rank computes.
        memory: bytes that are there; what the machine or the GPU has, where it is not given.

    Raises:
        TableMemoryError: they do not fit.
        ModelError: the model or one of its options is unknown.
    """
    width = int(model_options(config.model.name, config.model.options).get("embedding_dim", 1))
    remembered = 2 * width if config.optimizer.tables == "lazy_adam" else 1
    names = {field.vocabulary for field in contract.fields if field.vocabulary is not None}
    tables = {name: contract.vocabulary(name).size * (width + remembered) * 4 for name in names}
    here = local_ranks if device.type == "cpu" else 1
    shares = here / ranks if config.tables.placement == "sharded" else float(here)
    needed = sum(tables.values()) * shares
    available = memory if memory is not None else _memory(device)
    if needed <= available:
        return
    largest = max(tables, key=lambda name: tables[name])
    spread = "more ranks" if config.tables.placement == "sharded" else "tables.placement=sharded over several machines"
    raise TableMemoryError(
        f"embedding tables need {needed / _GIB:,.1f} GiB {'of this machine' if device.type == 'cpu' else 'of the GPU'}, which has "
        f"{available / _GIB:,.1f} GiB; the largest is that of vocabulary {largest!r}: {contract.vocabulary(largest).size:,} rows "
        f"of {width} numbers, and {remembered} that the optimizer keeps of each, {tables[largest] / _GIB:,.1f} GiB. Give "
        f"{largest!r} fewer ids (hash_buckets, max_size or min_count when the samples are built), or take a smaller "
        f"model.options.embedding_dim, optimizer.tables=rowwise_adagrad, or {spread}"
    )


def _memory(device: torch.device) -> int:
    """Bytes of the GPU, or of the machine or what a container may take of it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total: int = psutil.virtual_memory().total
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
