"""How far float32 may lie from float64, on any processor: bounds that follow from the arithmetic, and none that was set by hand.

Processors, their vector registers, the number of threads and the size of a batch decide in which order a sum is added up. No order is
wrong, so two float32 results are never compared with each other here: each is compared with float64.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.func import functional_call

from mian.contract.document import LABEL_COLUMN, USER_COLUMN
from mian.metrics import evaluate
from mian.models import ClickModel

UNIT = 2.0**-24
"""The largest relative error of one rounding to float32."""
DRAWS = 4

Tensors = Sequence[torch.Tensor]
Batch = Mapping[str, torch.Tensor]
Function = Callable[..., Tensors]


def rounding_bounds(run: Function, inputs: Tensors, terms: int) -> list[tuple[torch.Tensor, float]]:
    """The exact results of a function, and how far those of a stable algorithm in float32 may lie from them.

    A stable algorithm gives the exact results of inputs that are off by what was rounded on the way (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, sections 1.5 and 3.1): each by at most ``terms`` units, whatever the order of the sums. A bound is ``terms``
    times what the float64 result moves by when all inputs move by one unit, plus ``terms`` units of the result itself, of 1 where it is
    smaller.

    Args:
        run: takes tensors like ``inputs`` of either precision, gives results.
        inputs: of float32.
        terms: roundings on the longest way from an input to a result; a sum of n products has n.

    Returns:
        For each result its value in float64, and the largest difference from it.
    """
    exact = [tensor.detach() for tensor in run(*(tensor.detach().double() for tensor in inputs))]
    moves = [0.0] * len(exact)
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        moved = run(*(_moved(tensor.detach().double(), generator) for tensor in inputs))
        moves = [max(most, _largest(one.detach() - other)) for most, one, other in zip(moves, moved, exact, strict=True)]
    return [(value, terms * (move + UNIT * max(1.0, _largest(value)))) for value, move in zip(exact, moves, strict=True)]


def assert_float32(run: Function, inputs: Tensors, terms: int) -> None:
    """What a function gives in float32 is what it gives in float64, but for rounding; arguments as for :func:`rounding_bounds`."""
    found = run(*(tensor.detach().float() for tensor in inputs))
    for number, (got, (exact, bound)) in enumerate(zip(found, rounding_bounds(run, inputs, terms), strict=True)):
        assert got.dtype == torch.float32, f"result {number} is of {got.dtype}"
        error = _largest(got.detach().double() - exact)
        assert error <= bound, f"result {number} is off by {error:.1e}; rounding accounts for {bound:.1e}"


def assert_float32_scores(model: ClickModel, batch: Batch) -> torch.Tensor:
    """A model's logits in float32 are those in float64, but for rounding; gives those in float64, ``(B,)``."""
    exact, bound = exact_logits(model, batch)
    with torch.no_grad():
        error = _largest(model(batch).double() - exact)
    assert error <= bound, f"a logit is off by {error:.1e}; rounding accounts for {bound:.1e}"
    return exact


def exact_logits(model: ClickModel, batch: Batch) -> tuple[torch.Tensor, float]:
    """A model's logits in float64, ``(B,)``, and how far those in float32 may lie from them.

    The way from an input to a logit leads through each layer once at most, whose sums are as long as its weight is wide, and through sums
    over fields and over a history.
    """
    exact = copy.deepcopy(model).double()
    layers = sum(max(parameter.shape) for parameter in model.dense_parameters().values() if parameter.ndim)
    terms = layers + sum(column[:1].numel() for column in batch.values())
    names = [name for name, _ in model.named_parameters()]
    floats = [name for name, column in batch.items() if column.is_floating_point()]

    def run(*tensors: torch.Tensor) -> Tensors:
        weights = dict(zip(names, tensors, strict=False))
        columns = dict(zip(floats, tensors[len(names) :], strict=True))
        with torch.no_grad():
            return [functional_call(exact, weights, ({**batch, **columns},))]

    ((logits, bound),) = rounding_bounds(run, [*model.parameters(), *(batch[name] for name in floats)], terms)
    return logits, bound


def assert_metrics_of(metrics: dict[str, float], model: ClickModel, batch: Batch) -> None:
    """Metrics are those of a model's scores for the rows of a batch, as float32 may have them in any order of its sums.

    Logloss, AUC and gAUC are best where all probabilities move toward their labels by what rounding accounts for, and worst where they
    move away. Between the two AUC moves by the pairs of a click and another row that lie within twice that, and by no other. Calibration is
    lowest and highest where all move to one side.
    """
    logits, bound = exact_logits(model.eval(), batch)
    tolerance = bound / 4 + UNIT  # a sigmoid rises by a quarter at most
    labels, users = batch[LABEL_COLUMN].numpy(), batch[USER_COLUMN].numpy()
    toward = np.where(labels == 1, tolerance, -tolerance)

    def moved(by: npt.ArrayLike) -> dict[str, float]:
        return evaluate(labels, np.clip(torch.sigmoid(logits).numpy() + by, 0.0, 1.0), users)

    best, worst, low, high = moved(toward), moved(-toward), moved(-tolerance), moved(tolerance)
    slack = 1e-12  # of the metrics' own float64
    ranges = {name: (worst[name], best[name]) for name in ("auc", "gauc")}
    ranges |= {"logloss": (best["logloss"], worst["logloss"]), "calibration": (low["calibration"], high["calibration"])}
    for name, (least, most) in ranges.items():
        if math.isnan(least):  # rows of one class
            assert math.isnan(metrics[name]), name
        else:
            assert least - slack <= metrics[name] <= most + slack, f"{name}: {metrics[name]} is not in [{least}, {most}]"
    for name in ("rows", "positives"):
        assert metrics[name] == best[name], name


def _moved(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each number by a unit up or down."""
    signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
    return tensor * (1 + UNIT * signs)


def _largest(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0
