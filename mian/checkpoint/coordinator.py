"""What the ranks together keep of a training, and get back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mian.checkpoint.shards import Shards
from mian.checkpoint.store import CheckpointError, CheckpointStore, Kind
from mian.distributed.collectives import Ranks

log = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]


class Saving:
    """Writes checkpoints on the first rank, and gives every rank its part of one.

    Args:
        ranks: who takes part; all of them call each method.
        rows: by name, how many rows a sharded tensor has over all ranks; see :class:`mian.checkpoint.shards.Shards`.
        folder: for what is brought together, on the first rank.
        store: where checkpoints go, on the first rank.
        enabled: whether any are taken; the same on all ranks.
    """

    def __init__(self, ranks: Ranks, rows: Mapping[str, int], folder: Path, store: CheckpointStore | None, enabled: bool) -> None:
        self._ranks = ranks
        self._shards = Shards(ranks, rows, folder)
        self._store = store
        self.enabled = enabled
        self._failing: set[Kind] = set()

    def whole(self, state: Tensors) -> dict[str, torch.Tensor]:
        """See :meth:`mian.checkpoint.shards.Shards.gather`."""
        return self._shards.gather(state)

    def lacks_best(self, step: int) -> bool:
        """Whether the best checkpoint of a step, 0 for none, is to be written again; the same on all ranks."""
        return self._ranks.broadcast_object(bool(step and self._store is not None and not self._store.is_readable("best", step)))

    def write(self, kind: Kind, step: int, best_step: int, values: Mapping[str, Any], tensors: Mapping[str, Tensors]) -> None:
        """Write a checkpoint. One that cannot be written costs what would be redone, not the training.

        Args:
            kind: of the checkpoint.
            step: after which it is taken, or was.
            best_step: of the best one up to now.
            values: what of its state is no tensor.
            tensors: in groups.
        """
        if not self.enabled:
            return
        try:
            whole = self._shards.gather({name: tensor for group in tensors.values() for name, tensor in group.items()})
            if self._store is None:
                return
            groups = {group: {name: whole[name].cpu() for name in names} for group, names in tensors.items()}
            self._store.save(kind, step, {**values, **groups}, best_step)
            if kind == "step":
                self._store.tidy(step)
        except CheckpointError as error:
            if not self._failing:
                log.warning("%s; the training goes on, and tries again at each next checkpoint", error)
            self._failing.add(kind)
            return
        if kind in self._failing:
            what = "checkpoints" if kind == "step" else "best weights"
            log.info("%s: %s can be written again, the first after step %s", self._store.folder, what, f"{step:,}")
        self._failing.discard(kind)

    def restore(self, saved: Tensors | None, tensors: Tensors) -> None:
        """Put saved values into every rank's tensors, in place.

        Args:
            saved: on the first rank, or None; not looked at on the others.
            tensors: this rank's.

        Raises:
            CheckpointError: the saved ones are others; on the first rank.
            RankError: on the others then.
        """
        same_on_all = self._shards.replicated(tensors)

        def check_and_copy() -> None:
            if saved is not None:
                _check_shapes({name: tensor.shape for name, tensor in saved.items()}, self._shards.shapes(tensors))
                for name, tensor in same_on_all.items():
                    tensor.copy_(saved[name])

        self._ranks.run_on_all_ranks(check_and_copy, (CheckpointError,))
        self.broadcast(tensors)
        self._shards.hand_out(saved, tensors)

    def broadcast(self, tensors: Tensors) -> None:
        """Give every rank the first one's values, but of what is sharded."""
        self._ranks.broadcast(self._shards.replicated(tensors))


def _check_shapes(saved: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> None:
    differing = sorted({name for name, _ in saved.items() ^ expected.items()})
    if differing:
        raise CheckpointError(
            f"the checkpoint is of another release of this program: {differing[0]} differs; remove it to start anew"
        )
