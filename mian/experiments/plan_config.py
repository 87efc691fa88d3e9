"""What an experiment's YAML file under ``conf/experiment/`` may say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from mian.config import ModelChoice, Strict, TrackingConfig, TrainConfig
from mian.models import MODELS, model_options
from mian.seeds import LARGEST_SEED

Point = tuple[tuple[str, Any], ...]
"""Of the grid: pairs of a key, with dots, and its value."""


class Variant(Strict):
    """A model of an experiment, and the settings of its own."""

    name: str
    """Of the model, see ``mian.models.registry``."""
    options: dict[str, Any] = Field({})
    """Options of the model; those that are left out come from ``training`` or are defaults."""
    training: dict[str, Any] = Field({})
    """Settings of its training that differ from the experiment's, nested as there. What a variant sets, the grid does not."""


class Published(Strict):
    """Figures that others published on the same data, to stand beside these."""

    source: str
    """Where the figures come from."""
    auc: dict[str, float] = Field({})
    """AUC by model."""
    logloss: dict[str, float] = Field({})
    """Logloss by model."""


def _mian(**options: Any) -> Variant:
    return Variant(name="mian", options=options)


#: The models of the paper's Table 2, and FM and DCN-v2. The paper gives its peers the settings of DeepCTR (section 4.2), so these have
#: the layers that are the defaults of DeepCTR-Torch 0.3.0. DIEN's attention is that of its own paper. What the grid varies takes
#: precedence over DeepCTR's other defaults.
MODELS_OF_TABLE_2 = {
    "LR": Variant(name="lr"),
    "FM": Variant(name="fm"),
    "Wide&Deep": Variant(name="wide_deep", options={"mlp": [256, 128]}),
    "Deep&Cross": Variant(name="dcn", options={"cross_layers": 2, "mlp": [128, 128]}),
    "DCN-v2": Variant(name="dcn_v2", options={"cross_layers": 2, "mlp": [128, 128]}),
    "DeepFM": Variant(name="deepfm", options={"mlp": [256, 128]}),
    "xDeepFM": Variant(
        name="xdeepfm", options={"cin": [256, 128], "cin_split_half": True, "cin_activation": "relu", "mlp": [256, 256]}
    ),
    "DIN": Variant(name="din", options={"unit": [64, 16], "mlp": [256, 128], "activation": "relu"}),
    "DIEN": Variant(name="dien", options={"mlp": [256, 128], "activation": "relu"}),
    "MIAN": _mian(),
}
#: Those of its Tables 3 and 4.
ABLATIONS = {
    "w/o IUIM": _mian(without=["iuim"]),
    "w/o ICIM": _mian(without=["icim"]),
    "w/o IBIM": _mian(without=["ibim"]),
    "w/o GIM": _mian(without=["gim"]),
    "w/o IUIM&ICIM": _mian(without=["iuim", "icim"]),
    "post-LN Transformer": _mian(transformer="post_ln"),
    "no Transformer": _mian(transformer="none"),
}


class ExperimentConfig(Strict):
    """Models on the samples of one data set: each at the best point of one grid, with several seeds."""

    name: str
    """Name of the experiment, and of its run in MLflow."""
    title: str
    """Title of the report."""
    samples: str
    """The folder that ``build_samples`` wrote."""
    truth: str | None = None
    """True probabilities of a simulated world; then the attainable metrics and their upper bound are the tables' last rows."""
    output: str
    """Local folder for trials and the report; processes that share it share the work."""
    seeds: tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...] = Field((1, 2, 3), min_length=1)
    """The grid is searched with the first; the best point is trained with all."""
    training: dict[str, Any] = Field({})
    """Settings of all trainings, as in a training's file. Options of the model are those of the models that have them."""
    grid: dict[str, tuple[Any, ...]] | tuple[dict[str, Any], ...] = Field({})
    """Values by key, such as ``optimizer.learning_rate``; every combination is a point. Or a list of points, a value for each key. A model
    that lacks an option has fewer points."""
    models: dict[str, Variant] = Field(MODELS_OF_TABLE_2)
    """Table 2. What is named here takes the place of all of the paper's; see also ``extra_models``."""
    ablations: dict[str, Variant] = Field(ABLATIONS)
    """Tables 3 and 4, below ``treatment``."""
    extra_models: dict[str, Variant] = Field({})
    """Models below those of ``models``; one of the same name replaces it."""
    treatment: str = "MIAN"
    """The variant that ablations, figures and peers are held against."""
    proposed: tuple[str, ...] = ("MIAN", "MIAN-plus")
    """Models that are not peers: the ones that the experiment proposes."""
    latency_baseline: str = "DIN"
    """The model whose time per epoch counts as 1 in the table of efficiency."""
    timed_seconds: float = Field(1.0, gt=0)
    """How long each variant takes steps, in each of some rounds, to find how long an epoch takes."""
    cases: int = Field(14, ge=1)
    """Samples of the test split whose weights are drawn."""
    published: Published | None = None
    tracking: TrackingConfig = TrackingConfig(experiment="mian-reproduce", registered_name=None)

    @model_validator(mode="after")
    def _variants_are_there(self) -> ExperimentConfig:
        for key in ("treatment", "latency_baseline"):
            if getattr(self, key) not in self.variants:
                raise ValueError(f"{key}: there is no variant {getattr(self, key)!r}; there are {', '.join(self.variants)}")
        if "train_window_days" in self.training:
            raise ValueError(
                "training.train_window_days: an experiment trains on all of its training split; build samples of fewer days"
            )
        twice = [name for name in self.ablations if name in {**self.models, **self.extra_models}]
        if twice:
            raise ValueError(f"ablations: {twice[0]!r} is also among models; give it another name")
        if self.variants[self.treatment].name != "mian":
            raise ValueError(
                f"treatment: {self.treatment!r} is {self.variants[self.treatment].name}, and has no such attention; take a mian"
            )
        for name, variant in self.variants.items():
            if variant.name not in MODELS:
                raise ValueError(f"{name}: there is no model {variant.name!r}; there are {', '.join(sorted(MODELS))}")
        if not any(name not in self.proposed for name in self.compared):
            raise ValueError("proposed: every model is proposed; there is nothing to compare with")
        known = {option for variant in self.variants.values() for option in MODELS[variant.name].config.model_fields}
        shared = {f"training.model.options.{option}": option for option in _shared_options("training", self.training)}
        shared |= {f"grid: {key}": key.rpartition(".")[2] for key in self.grid_keys if key.startswith("model.options.")}
        for place, option in shared.items():
            if option not in known:
                raise ValueError(f"{place}: no variant's model has an option {option!r}")
        for name in self.variants:
            for point in self.points(name):
                self.trial(name, point, self.seeds[0])
        return self

    @property
    def compared(self) -> dict[str, Variant]:
        """The variants of Table 2."""
        return {**self.models, **self.extra_models}

    @property
    def variants(self) -> dict[str, Variant]:
        """All models of the experiment by name: those of Table 2, the extra ones, the ablations."""
        return {**self.compared, **self.ablations}

    def points(self, name: str) -> list[Point]:
        """The points of the grid for a variant, each once."""
        variant = self.variants[name]
        options = MODELS[variant.name].config.model_fields

        def applies(key: str) -> bool:
            *above, last = key.split(".")
            if above == ["model", "options"]:
                return last in options and last not in variant.options
            return not _has(variant.training, key)

        if isinstance(self.grid, Mapping):
            axes = [[(key, value) for value in values] for key, values in self.grid.items()]
            points = list(itertools.product(*axes))
        else:
            points = [tuple(point.items()) for point in self.grid]
        return list(dict.fromkeys(tuple((key, value) for key, value in point if applies(key)) for point in points))

    @property
    def grid_keys(self) -> list[str]:
        """The settings that the grid varies, with dots."""
        return (
            list(self.grid)
            if isinstance(self.grid, Mapping)
            else list(dict.fromkeys(key for point in self.grid for key in point))
        )

    def trial(self, name: str, point: Point, seed: int) -> TrainConfig:
        """The training of a variant at a point of the grid with a seed; the test split is not read.

        Raises:
            ValidationError: no such setting, or a value that it may not have.
        """
        variant = self.variants[name]
        values: dict[str, Any] = {}
        for layer in (self.training, *(_nested(key, value) for key, value in point), variant.training):
            values = _merged(values, layer)
        known = MODELS[variant.name].config.model_fields
        shared = {option: value for option, value in _shared_options(name, values).items() if option in known}
        # with all defaults, so that what was trained with other ones is another training
        model = ModelChoice(name=variant.name, options=model_options(variant.name, {**shared, **variant.options}))
        where = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in point)
        tracking = self.tracking.model_copy(update={"run_name": " ".join(filter(None, (name, where, f"seed={seed}")))})
        own = {
            "samples": self.samples,
            "output": self.output,
            "test_split": None,
            "seed": seed,
            "tracking": tracking,
            "model": model,
        }
        return TrainConfig.model_validate({**values, **own})

    def points_by_variant(self) -> Iterator[tuple[str, Point]]:
        """Every variant at every point of its grid."""
        for name in self.variants:
            for point in self.points(name):
                yield name, point


def _shared_options(place: str, training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options of whatever model a variant has.

    Raises:
        ValueError: settings that name a model, or are no mapping.
    """
    model = training.get("model", {})
    options = model.get("options", {}) if isinstance(model, Mapping) and model.keys() <= {"options"} else None
    if not isinstance(options, Mapping):
        raise ValueError(
            f"{place}: model may hold options and nothing else, it is {model!r}; variants name their models themselves"
        )
    return options


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    nested = [key for key in low.keys() & high.keys() if isinstance(low[key], Mapping) and isinstance(high[key], Mapping)]
    return {**low, **high, **{key: _merged(low[key], high[key]) for key in nested}}


def _has(values: Mapping[str, Any], key: str) -> bool:
    first, _, rest = key.partition(".")
    return first in values and (not rest or (isinstance(values[first], Mapping) and _has(values[first], rest)))
