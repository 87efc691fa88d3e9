"""Exchanges of made-up gradients, a work of each rank."""

import os
import socket
import struct
from pathlib import Path
from typing import Any

import torch

from mian.distributed.collectives import Ranks
from mian.distributed.compression import gradient_codec

DENSE, ROWS, TABLE_ROWS, WIDTH = 300_001, 6_000, 10_000, 16
#: Of the cases with so many numbers, the parts by which gradients are multiplied.
SIZES = {"usual": 1e-5, "tiny": 1e-20, "large": 1e6}
_TCP_BYTES_SENT = 200  # where Linux's struct tcp_info has tcpi_bytes_sent


def exchanged(ranks: Ranks) -> dict[str, Any]:
    """By compression what this rank had and what came of it, and how many bytes it sent for that."""
    results: dict[str, Any] = {}
    for compression in ("none", "fp16", "bf16"):
        ranks.compress_gradients(gradient_codec(compression))  # type: ignore[arg-type]
        results[compression] = {name: exchange(ranks, size) for name, size in SIZES.items()}
        results[compression]["flags"] = {name: flag(ranks, name) for name in ("nobody", "stop", "nan", "inf")}
        results[compression]["swapped"] = all_to_all(ranks)
    ranks.barrier()
    return results


def exchange(ranks: Ranks, size: float) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(ranks.rank)
    dense = torch.randn(DENSE, generator=generator) * size
    dense[-1] = 0.0
    rows = torch.randperm(TABLE_ROWS, generator=generator)[:ROWS]
    values = torch.randn(ROWS, WIDTH, generator=generator) * size
    own = {"dense": dense.clone(), "rows": rows.clone(), "values": values.clone()}
    ranks.barrier()
    before = sent()
    table_gradients = ranks.allreduce_gradients(dense, {"table": (rows, values)})
    bytes_sent = sent() - before
    rows, values = table_gradients["table"]
    mean = torch.zeros(TABLE_ROWS, WIDTH).index_copy_(0, rows, values)
    return {"own": own, "dense": dense, "rows": rows, "table": mean, "bytes": bytes_sent}


def flag(ranks: Ranks, what: str) -> float:
    """What the last number is after an exchange in which one rank, the last, has something to say, or a gradient that is none."""
    dense = torch.full((1000,), 3e38 if what == "nobody" else 1e-9)
    dense[-1] = 0.0
    if ranks.rank == ranks.size - 1:
        dense[-1] = {"nobody": 0.0, "stop": 1.0}.get(what, float("nan"))
        dense[5] = {"nan": float("nan"), "inf": float("inf")}.get(what, 0.0)
    ranks.allreduce_gradients(dense, {})
    return float(dense[-1])


def all_to_all(ranks: Ranks) -> dict[str, Any]:
    """Vectors, which must not be rounded, and gradients, from each rank to each; ranks send different numbers of them."""
    generator = torch.Generator().manual_seed(100 + ranks.rank)
    counts = torch.tensor([5 * ranks.rank + to for to in range(ranks.size)])
    values = torch.randn(int(counts.sum()), WIDTH, generator=generator)
    vectors, _ = ranks.all_to_all(values, counts, "vectors")
    return {"vectors": vectors, "gradients": ranks.all_to_all_gradients(values, counts)}


def sent() -> int:
    """Bytes that this process has sent over its TCP connections so far, as the kernel counts them."""
    total = 0
    for opened in list(Path("/proc/self/fd").iterdir()):
        try:
            if not str(opened.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(opened.name))) as connection:
                if connection.type == socket.SOCK_STREAM:
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_BYTES_SENT + 8)
                    total += struct.unpack_from("Q", info, _TCP_BYTES_SENT)[0]
        except OSError:  # closed since, or not of TCP
            continue
    return total
