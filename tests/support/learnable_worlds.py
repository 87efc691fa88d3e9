"""Made-up worlds with one effect each: a model either can use it or knows nothing.

A sample has a candidate item; a history of four behaviors, each an item and an action; and two fields (more where the candidate picks
one) each of user and context. All are
drawn alike in every world, and independently of each other but for what is said here: there are four items, and every history has each
of them once, in some order; two were bought and two were skipped. So fields by themselves, and the means of a history's fields, which
are always the same, say nothing about which item was bought or which came last.

The click's log-odds are ``STRENGTH`` or its negative, each for half of the samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from mian.config import OptimizerConfig
from mian.contract import Contract, Field
from mian.distributed.collectives import Ranks
from mian.models import ClickModel
from mian.optim.optimizer import Optimizer
from mian.training.step import TrainingStep
from tests.factories import categorical, make_contract

STRENGTH = 2.2
VALUES = 8
LENGTH = 4
ITEMS = LENGTH
SIGN = np.repeat([-1, 1], VALUES // 2)  # of a value
SIGN_OF_ITEM = np.repeat([-1, 1], ITEMS // 2)
BOUGHT = 1

Array = npt.NDArray[np.int64]
Batch = dict[str, torch.Tensor]

FIELDS = (
    categorical("candidate", "item", "item"),
    categorical("behaviors", "item", "item"),
    categorical("behaviors", "action", "action"),
    categorical("user", "age", "age"),
    categorical("user", "home", "home"),
    categorical("context", "hour", "hour"),
    categorical("context", "page", "page"),
)
SHELVES = 8
#: A field of each group for every shelf to pick.
MORE_FIELDS = (
    *FIELDS,
    categorical("candidate", "shelf", "shelf"),
    *(categorical("user", f"u{number}", f"u{number}") for number in range(SHELVES)),
    *(categorical("context", f"c{number}", f"c{number}") for number in range(SHELVES)),
)


def second_order(values: dict[str, Array]) -> Array:
    """What a user's age and the hour are together; neither says anything alone."""
    return SIGN[values["user_age"]] * SIGN[values["context_hour"]]


def history(values: dict[str, Array]) -> Array:
    """Whether the candidate was bought or skipped: item and action of one behavior, which the means of both fields do not tell."""
    actions = values["behavior_action"][values["behavior_item"] == values["candidate_item"][:, None]]
    return np.where(actions == BOUGHT, 1, -1)


def order(values: dict[str, Array]) -> Array:
    """Which half of the items the most recent behavior is of."""
    return SIGN_OF_ITEM[values["behavior_item"][:, 0]]


def profile(values: dict[str, Array]) -> Array:
    """What a user's age is."""
    return SIGN[values["user_age"]]


def context(values: dict[str, Array]) -> Array:
    """What the hour is."""
    return SIGN[values["context_hour"]]


def picked_profile(values: dict[str, Array]) -> Array:
    """The candidate's shelf says which of the user's fields counts."""
    return SIGN[_picked(values, "user_u")]


def picked_context(values: dict[str, Array]) -> Array:
    """The candidate's shelf says which of the context's fields counts."""
    return SIGN[_picked(values, "context_c")]


def _picked(values: dict[str, Array], columns: str) -> Array:
    fields = np.stack([values[f"{columns}{number}"] for number in range(SHELVES)])
    return fields[values["candidate_shelf"], np.arange(fields.shape[1])]


Effect = Callable[[dict[str, Array]], Array]
EFFECTS: dict[str, Effect] = {
    effect.__name__: effect for effect in (second_order, history, order, profile, context, picked_profile, picked_context)
}


def fields_of(effect: str) -> tuple[Field, ...]:
    """The fields of an effect's world."""
    return MORE_FIELDS if effect.startswith("picked") else FIELDS


def contract_of(fields: Sequence[Field] = FIELDS) -> Contract:
    """A contract of a world's fields."""
    sizes = {"item": ITEMS, "action": 2}
    vocabularies = {field.vocabulary or "": 2 + sizes.get(field.vocabulary or "", VALUES) for field in fields}
    return make_contract(*fields, vocabularies=vocabularies, length=LENGTH)


@dataclass(frozen=True)
class World:
    """Samples to train on and others to test on, each with labels; and the test samples' best possible scores."""

    train: Batch
    test: Batch
    truth: Array

    def aucs(self, model: ClickModel) -> tuple[float, float]:
        """Of a model on the test samples, and the best possible."""
        with torch.inference_mode():
            scores = model.eval()(self.test).numpy()
        labels = self.test["label"].numpy()
        return roc_auc_score(labels, scores), roc_auc_score(labels, self.truth)


def make_world(effect: str, train: int = 16_384, test: int = 8_192, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    rows = train + test
    items = rng.permuted(np.tile(np.arange(ITEMS), (rows, 1)), axis=1)
    values = {
        "candidate_item": rng.integers(0, ITEMS, rows),
        "behavior_item": items,
        "behavior_action": rng.permuted(np.tile([BOUGHT, BOUGHT, 0, 0], (rows, 1)), axis=1),
    }
    values |= {
        field.column: rng.integers(0, VALUES, rows)
        for field in fields_of(effect)
        if field.group in ("user", "context") or field.name == "shelf"
    }
    truth = EFFECTS[effect](values)
    labels = rng.random(rows) < 1 / (1 + np.exp(-STRENGTH * truth))
    columns = {name: torch.tensor(of + 2, dtype=torch.int32) for name, of in values.items()}  # 0 is padding, 1 is unknown
    columns |= {"behavior_length": torch.full((rows,), LENGTH, dtype=torch.int32), "label": torch.tensor(labels.astype(np.int32))}
    return World({n: of[:train] for n, of in columns.items()}, {n: of[train:] for n, of in columns.items()}, truth[train:])


def train(
    model: ClickModel, batch: Batch, epochs: int, batch_size: int = 256, learning_rate: float = 1e-2, seed: int = 0
) -> None:
    """Train by the trainer's own step; the learning rate falls to nothing."""
    torch.manual_seed(seed)
    step = TrainingStep(model.train(), Optimizer(model, OptimizerConfig(learning_rate=learning_rate, schedule="linear"), Ranks()))
    rows = len(batch["label"])
    for epoch in range(epochs):
        for start, places in enumerate(torch.randperm(rows).split(batch_size)):
            part = {name: column[places] for name, column in batch.items()}
            step(part, (epoch + start * batch_size / rows) / epochs)
    model.eval()
