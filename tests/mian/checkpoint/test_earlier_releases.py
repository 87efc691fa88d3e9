"""What checkpoints of earlier releases call otherwise is read under its name of today."""

import torch

from mian.checkpoint.progress import Progress
from mian.models import current_names
from mian.stream import EpochSegment

PROGRESS = {"planned_samples": 10, "world_size": 1, "batch_size": 2}


def test_segments_were_called_legs() -> None:
    segment = {"world_size": 2, "batch_size": 4, "steps": 3}
    for name in ("legs", "segments"):
        assert Progress.model_validate({**PROGRESS, name: [segment]}).segments == [EpochSegment(2, 4, 3)]


def test_weights_have_their_names_of_today() -> None:
    weight = torch.ones(1)
    old = {
        "logit_shift": weight,
        "unit.of_candidate.weight": weight,
        "item_behaviors.of_product.weight": weight,
        "optimizer.dense.step": weight,
        "kind_of_behavior.weight": weight,
    }
    assert list(current_names(old)) == [
        "sampling_logit_correction",
        "unit.candidate_projection.weight",
        "item_behaviors.product_projection.weight",
        "optimizer.dense.step",
        "kind_of_behavior.weight",
    ]
    assert list(current_names(current_names(old))) == list(current_names(old))
