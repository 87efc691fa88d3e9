"""What a training's YAML file under ``conf/train/`` may say.

All settings stand in this file, longer than others, in the order of the YAML file that a reader has open beside it.
"""

from __future__ import annotations

import itertools
import logging
import posixpath
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mian.seeds import LARGEST_SEED

log = logging.getLogger(__name__)


class Strict(BaseModel):
    """Settings that know no other keys, and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


#: The learning rate of a warm start over that of a training from scratch.
WARM_RATE = 1 / 6
Precision = Literal["fp32", "bf16"]
Value = TypeVar("Value")


class _Neutral:
    """The type of :data:`NEUTRAL`."""


NEUTRAL = _Neutral()
"""Marks a setting that does not decide the weights that come out of a training. Trainings that differ in such settings alone are one
training: the checkpoint of one is a checkpoint of the other."""
Neutral = Annotated[Value, NEUTRAL]


class ModelChoice(Strict):
    """Which model, with which of its options; see ``mian.models.registry``."""

    name: str = "mian"
    """Name of the model: ``mian``, ``mian_plus``, ``lr``, ``fm``, ``wide_deep``, ``deepfm``, ``dcn``, ``dcn_v2``, ``xdeepfm``, ``din`` or
    ``dien``."""
    options: dict[str, Any] = {}
    """Options of the model; those that are left out have their defaults."""


class OptimizerConfig(Strict):
    """Adam for dense weights; of embedding tables the rows that a batch does not hold stay as they are."""

    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of dense weights, and of embedding tables unless ``learning_rate_tables`` says otherwise."""
    learning_rate_scaling: Literal["none", "linear"] = "none"
    """``linear`` multiplies the learning rate by the current number of ranks (Goyal et al. 2017)."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the planned samples over which the learning rate climbs, in even steps: with ``learning_rate_scaling: linear`` from that of
    one rank, else from a hundredth of itself."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up. ``linear``, ``cosine``: the learning rate falls to a hundredth of itself over the rest of the planned samples,
    evenly, or as half a cosine does."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Adam's decay of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's decay of the second moment."""
    l2: float = Field(0.0, ge=0)
    """Added to a gradient as ``l2 * weight``, for dense weights but biases and norms."""
    l2_embedding: float = Field(0.0, ge=0)
    """The same for embedding rows that the global batch holds."""
    tables: Literal["lazy_adam", "rowwise_adagrad"] = "lazy_adam"
    """For embedding tables. ``lazy_adam`` remembers two numbers a weight, ``rowwise_adagrad`` one a row."""
    learning_rate_tables: float | None = Field(None, gt=0)
    """For embedding tables, on the same schedule; ``learning_rate`` where it is not given. Row-wise Adagrad wants a larger one."""
    clip_norm: float | None = Field(None, gt=0)
    """Greatest Euclidean norm of all dense gradients together, taken after the ranks' gradients are averaged."""
    compression: Literal["none", "fp16", "bf16"] = "none"
    """What gradients are between ranks: as they are, or in 16 bits, half of the bytes. ``fp16`` keeps ten bits behind a number's first one,
    ``bf16`` seven; they are added up in float32, and neither overflows. Row numbers and weights are never rounded."""


class StreamConfig(Strict):
    """How ranks read samples."""

    workers: Neutral[int] = Field(2, ge=1)
    """Reading threads a rank."""
    shuffle_window: int = Field(4, ge=1)
    """The rows of so many row groups are shuffled together. A rank holds up to three such windows of its rows in memory."""
    mixed_row_groups: int = Field(32, ge=1)
    """A window has rows of so many row groups, drawn anew for each epoch: of a piece of each. A rank has them open meanwhile, which costs
    some 30 MiB for each of 50,000 samples with histories of 30 and three fields."""
    resident: bool = False
    """Keep each rank's training samples in memory, as the tensors that they become, from the first epoch on. Every epoch then has the same
    windows, its rows shuffled anew. Not with ``order: global``."""
    verify: Neutral[Literal["never", "epoch"]] = "never"
    """``epoch``: every file is compared with its checksum once an epoch, by the ranks that read it."""
    order: Literal["sharded", "global"] = "sharded"
    """``global``: every rank reads everything and takes its part of each global batch, so that batches do not depend on the number of
    ranks; slower, for comparisons."""

    @model_validator(mode="after")
    def _resident_is_sharded(self) -> StreamConfig:
        if self.resident and self.order == "global":
            raise ValueError(
                "resident: true needs order: sharded, because with order: global every rank reads all samples; "
                "set order: sharded, or resident: false"
            )
        return self


class TablesConfig(Strict):
    """Where the rows of embedding tables lie."""

    placement: Literal["replicated", "sharded"] = "replicated"
    """``replicated``: Every rank holds all rows. ``sharded``: Each row and its optimizer state lie on one rank; use it for tables that do
    not fit one worker. The trained weights are the same except for rounding. ``split`` is the old name of ``sharded``."""

    @field_validator("placement", mode="before")
    @classmethod
    def _split_is_now_sharded(cls, placement: Any) -> Any:
        if placement == "split":
            log.warning("tables.placement: split is now called sharded; change it in the configuration")
            return "sharded"
        return placement


class TrackingConfig(Strict):
    """Where MLflow keeps the run and the model."""

    uri: str | None = None
    """Tracking server; ``MLFLOW_TRACKING_URI``, or else ``sqlite:///mlflow.db``, where it is not given."""
    experiment: str = "mian"
    """Experiment in MLflow; it is created if it does not exist."""
    run_name: str | None = None
    """Name of the run; MLflow makes one up if it is null."""
    registered_name: str | None = "mian"
    """Name in the registry; null leaves the model unregistered."""
    alias: str = "newest"
    """Alias that the new version gets, unless it is that of a trial (``max_steps``): ``models:/mian@newest``."""

    @field_validator("experiment")
    @classmethod
    def _experiment_has_a_name(cls, name: str) -> str:
        if not name.strip() or len(name) > 500:
            raise ValueError("MLflow takes experiments of 1 to 500 characters")
        return name

    @field_validator("registered_name")
    @classmethod
    def _name_is_one_of_the_registry(cls, name: str | None) -> str | None:
        if name is None:
            return None
        if (
            not name.strip()
            or len(name) > 256
            or re.search("[/:]", name)
            or posixpath.normpath(name) != name
            or name[:2] in (".", "..")
        ):
            raise ValueError(
                f"MLflow refuses {name!r}: a model's name has 1 to 256 characters, without / and :, and is not . or .."
            )
        return name

    @field_validator("alias")
    @classmethod
    def _alias_is_free(cls, alias: str) -> str:
        if not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError(
                f"MLflow refuses {alias!r}: an alias has 1 to 255 letters, digits, _ and -, and is neither latest nor a version such as v1"
            )
        return alias


class CheckpointConfig(Strict):
    """What is kept of a training that has not ended. Started again with the same settings on the same samples, it goes on from there."""

    enabled: bool = True
    """One at the end of each epoch, and when the training is asked to stop (SIGTERM)."""
    every_steps: int | None = Field(None, ge=1)
    """And one after every so many steps."""
    keep: int = Field(2, ge=1)
    """How many of the newest are kept; with two, one that was damaged costs no more than the steps between."""
    keep_ended: bool = False
    """Whether the last one of a training that has ended stays, in ``ended`` of ``output``. The same command with more ``epochs`` then
    goes on from it."""


class TrainConfig(Strict):
    """The settings of a training: samples, model, optimizer, and where results go."""

    samples: Neutral[str]
    """The folder that ``build_samples`` wrote; a local path or any URL that fsspec opens."""
    model: ModelChoice = ModelChoice()
    optimizer: OptimizerConfig = OptimizerConfig()
    stream: StreamConfig = StreamConfig()
    tables: Neutral[TablesConfig] = TablesConfig()
    checkpoint: Neutral[CheckpointConfig] = CheckpointConfig()
    tracking: Neutral[TrackingConfig] = TrackingConfig()
    init_from: str | None = None
    """A trained model whose weights the training begins with, of the same name and options (``dropout``, ``init_std`` and
    ``auxiliary_weight`` may differ): ``models:/mian@newest``, ``models:/mian/3``, or the folder that a training named. The samples may have
    more values behind those of its vocabularies, see ``init_new_rows``, and more fields, whose vectors are drawn, as are the weights that
    have another shape then. The learning rate is that of a warm start, see ``warm_rate``. The validation split is scored before the first
    step. Also a folder of checkpoints, such as ``checkpoint.keep_ended`` leaves."""
    init_moments: bool = False
    """Whether the moments of the optimizer are taken too, of a folder of checkpoints, with its last weights in the place of the best; those
    of what is new begin at zero."""
    warm_rate: float | None = Field(None, gt=0)
    """With ``init_from``, the learning rates are multiplied by this. Where it is not given: 1/6, and 1 with ``init_moments``. Without
    ``init_from`` it changes nothing."""
    init_new_rows: Literal["unknown", "draw", "category_mean"] = "unknown"
    """With ``init_from``, what the embedding rows of values begin with that the vocabularies got since. ``unknown``: the vector of the
    unknown value, so that the training begins with the model's own scores. ``draw``: drawn, as in a training from scratch.
    ``category_mean``: the mean of the vectors of the known values that the training days show with the same value of ``init_category``,
    for fields of the candidate; the unknown value's vector where there is none, or a value has several categories."""
    init_category: str = "category"
    """Categorical field of the candidate that ``init_new_rows: category_mean`` goes by."""
    train_split: str = "train"
    """Split that the model is trained on."""
    train_window_days: Neutral[int | None] = Field(None, ge=1)
    """Only the last so many days of the training split are trained on; null: all of them."""
    validation_split: str = "validation"
    """Split that decides which weights are best, and when training ends."""
    test_split: str | None = "test"
    """Split that the best weights are scored on at the end; null scores none."""
    batch_size: int = Field(128, ge=1)
    """Samples a step and rank."""
    backward_passes_per_step: int = Field(1, ge=1)
    """A step works on its batch in so many parts, one after the other, which takes the memory of one; their gradients are added up, and
    the weights change once. Other than in the memory, in what dropout draws, in the behaviors that DIEN draws as negatives, which are
    those of a part, and in the statistics of a model that normalizes by its batch, which here are a part's, the result is that of the
    whole batch."""
    epochs: int = Field(3, ge=1)
    """How many times the training split is read at most."""
    evaluations_per_epoch: int = Field(1, ge=1)
    """How often the validation split is scored, at even distances."""
    patience: int = Field(2, ge=1)
    """Training ends after so many evaluations without a lower validation logloss."""
    max_steps: int | None = Field(None, ge=1)
    """Ends training after so many steps, as a trial."""
    calibration: Literal["none", "platt"] = "none"
    """``platt``: when training has ended, two numbers are fitted on the validation split, and kept in the model, so that its probabilities
    agree with the click rate there (Platt 1999): ``scale * logit + offset``, scale > 0. The order of scores stays. Metrics of the
    validation split, by which weights are chosen, are those before. ``none``: probabilities are as the model has learned them."""
    log_every: Neutral[int] = Field(50, ge=1)
    """Steps between two points of the training curve."""
    evaluation_batch_size: int = Field(4096, ge=1)
    """Samples a rank scores at once."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """What initial weights, dropout and the order of samples are drawn from."""
    device: Neutral[Literal["auto", "cpu", "cuda"]] = "auto"
    """Where a rank computes. ``auto``: on a GPU where torch finds one. The ranks of a machine take its GPUs one after the other; where it
    has fewer than ranks, several work on one. A training that was stopped may go on on another device."""
    precision: Precision = "fp32"
    """``bf16``: the model's products are taken of numbers rounded to bfloat16 while it is trained. Weights, sums, softmaxes, losses, what
    the optimizer remembers and what ranks exchange stay float32, and so does the model wherever it does not learn."""
    compile: Neutral[bool] = False
    """Whether ``torch.compile`` makes the model's forward and backward pass in training, but for the embedding's. It needs a C++ compiler,
    and takes a minute at the start. The weights that come out are the same but for rounding, and for which entries dropout drops."""
    cuda_graphs: Neutral[bool] = True
    """Whether a GPU gets forward and backward pass of a step in one piece, recorded once for each shape of batches. Sharded tables,
    ``backward_passes_per_step`` over 1, and models that ask for values on the way (DIEN with states wider than 64) do without. The weights
    that come out are the same but for rounding."""
    threads: Neutral[int | None] = Field(None, ge=1, le=1024)
    """Compute threads a rank. Where it is not given: the cores that the machine, or the container's processor quota, has for it over
    its ranks, but one for every 512 rows of a batch at most."""
    exchange_timeout_seconds: Neutral[int] = Field(600, ge=1)
    """For how long ranks wait for one that does not come to an exchange; more than the first rank takes to write a checkpoint. For a
    process that is frozen, or a host that is cut off, ``horovodrun --gloo-timeout-seconds`` says so, 30 where it does not."""
    profile: Neutral[bool] = False
    """Whether each rank writes a trace of some steps, which Perfetto opens, into ``profiles`` of ``output``; also ``--profile``."""
    position_fields: Neutral[dict[str, str | int | float | None]] = {"position": None}
    """Fields of the context that are known only after ranking, and for each the value that the model reads where a request leaves it out:
    ``{slot: 4}``. Null, or a list of names, takes the most frequent value of the training days, of a number the mean. The model learns from
    these fields as from any other. A field ``position`` need not be there."""
    output: Neutral[str] = "models"
    """Local folder; the trained model is kept in a new folder inside, whatever happens to the tracking server. Checkpoints are there too,
    in ``checkpoints``; and, while it is evaluated, what a rank scores of a split beyond 2 million rows, 16 bytes a row."""

    @field_validator("position_fields", mode="before")
    @classmethod
    def _names_alone(cls, fields: Any) -> Any:
        return (
            dict.fromkeys(fields)
            if isinstance(fields, (list, tuple)) and all(isinstance(name, str) for name in fields)
            else fields
        )

    @model_validator(mode="after")
    def _passes_are_of_one_size(self) -> TrainConfig:
        if self.batch_size % self.backward_passes_per_step:
            raise ValueError(
                f"batch_size ({self.batch_size}) has to be a multiple of backward_passes_per_step ({self.backward_passes_per_step}): a "
                "step's batch is cut into so many parts of one size"
            )
        return self

    @model_validator(mode="after")
    def _moments_are_of_a_training(self) -> TrainConfig:
        if self.init_moments and self.init_from is None:
            raise ValueError("init_moments takes the moments of init_from, which names no folder of checkpoints; name one")
        return self

    @model_validator(mode="after")
    def _splits_are_apart(self) -> TrainConfig:
        splits = {"train_split": self.train_split, "validation_split": self.validation_split, "test_split": self.test_split}
        for one, other in itertools.combinations(splits, 2):
            if splits[one] == splits[other]:
                raise ValueError(
                    f"{one} and {other} are both {splits[one]!r}: what was trained on, or chosen by, tells nothing of other days; "
                    "name another split (test_split: null scores none)"
                )
        return self

    def optimizer_of_start(self) -> OptimizerConfig:
        """The settings of the optimizer, with the learning rates of a warm start where ``init_from`` makes it one."""
        rate = 1.0
        if self.init_from is not None:
            rate = self.warm_rate or (1.0 if self.init_moments else WARM_RATE)
        table_rate = self.optimizer.learning_rate_tables
        rates = {
            "learning_rate": self.optimizer.learning_rate * rate,
            "learning_rate_tables": None if table_rate is None else table_rate * rate,
        }
        return self.optimizer.model_copy(update=rates)

    def settings(self) -> dict[str, Any]:
        """What decides the weights that come out, on given samples: all fields but those that are marked as :data:`NEUTRAL`."""
        return self.model_dump(mode="json", exclude=_neutral_fields(type(self)))


def _neutral_fields(model: type[BaseModel]) -> dict[str, Any]:
    """The fields that decide no weights, nested as :meth:`pydantic.BaseModel.model_dump` takes them for ``exclude``."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if NEUTRAL in field.metadata:
            found[name] = True
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= {name: inside} if (inside := _neutral_fields(field.annotation)) else {}
    return found
