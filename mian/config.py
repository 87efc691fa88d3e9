"""What a training's YAML file under ``conf/train/`` may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelChoice(_Strict):
    """Which model, with which of its options; see ``mian.models.registry``."""

    name: str = "mian"
    options: dict[str, Any] = {}


class OptimizerConfig(_Strict):
    """Adam; embedding rows that a batch does not hold keep their moments (lazy Adam)."""

    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "linear"] = "constant"
    """``linear``: the learning rate falls to a hundredth of itself over the planned steps."""
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    l2: float = Field(0.0, ge=0)
    """Added to a gradient as ``l2 * weight``, for dense weights but biases and norms."""
    l2_embedding: float = Field(0.0, ge=0)
    """The same for embedding rows that the global batch holds."""
    clip_norm: float | None = Field(None, gt=0)
    """Greatest Euclidean norm of all dense gradients together, taken after the ranks' gradients are averaged."""


class StreamConfig(_Strict):
    """How samples are read."""

    workers: int = Field(2, ge=1)
    """Reading threads a rank."""
    order: Literal["sharded", "global"] = "sharded"
    """``global``: every rank reads everything and takes its part of each global batch, so that batches do not depend on the number of
    ranks; slower, for comparisons."""


class TrackingConfig(_Strict):
    """Where MLflow keeps the run and the model."""

    uri: str | None = None
    """Tracking server; ``MLFLOW_TRACKING_URI``, or else ``sqlite:///mlflow.db``, where it is not given."""
    experiment: str = "mian"
    run_name: str | None = None
    registered_name: str | None = "mian"
    """Name in the registry; null leaves the model unregistered."""
    alias: str = "newest"
    """Alias that the new version gets: ``models:/mian@newest``."""


class CheckpointConfig(_Strict):
    """What is kept of a training that has not ended. Started again with the same settings on the same samples, it goes on from there."""

    enabled: bool = True
    """One at the end of each epoch, and when the training is asked to stop (SIGTERM)."""
    every_steps: int | None = Field(None, ge=1)
    """And one after every so many steps."""
    keep: int = Field(2, ge=1)
    """How many of the newest are kept; with two, one that was damaged costs no more than the steps between."""


class TrainConfig(_Strict):
    """A training."""

    samples: str
    """The folder that ``build_samples`` wrote; a local path or any URL that fsspec opens."""
    model: ModelChoice = ModelChoice()
    optimizer: OptimizerConfig = OptimizerConfig()
    stream: StreamConfig = StreamConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str | None = "test"
    batch_size: int = Field(128, ge=1)
    """Samples a step and rank."""
    epochs: int = Field(3, ge=1)
    evaluations_per_epoch: int = Field(1, ge=1)
    """How often the validation split is scored, at even distances."""
    patience: int = Field(2, ge=1)
    """Training ends after so many evaluations without a lower validation logloss."""
    max_steps: int | None = Field(None, ge=1)
    """Ends training after so many steps, as a trial."""
    log_every: int = Field(50, ge=1)
    """Steps between two points of the training curve."""
    evaluation_batch_size: int = Field(4096, ge=1)
    seed: int = 0
    threads: int | None = Field(None, ge=1)
    """Compute threads a rank; the machine's cores over its ranks where it is not given."""
    exchange_timeout_seconds: int = Field(600, ge=1)
    """For how long ranks wait for one that does not come to an exchange; more than the first rank takes to write a checkpoint. For a
    process that is frozen, or a host that is cut off, ``horovodrun --gloo-timeout-seconds`` says so, 30 where it does not."""
    profile: bool = False
    """Whether each rank writes a trace of some steps, which Perfetto opens, into ``profiles`` of ``output``; also ``--profile``."""
    output: str = "models"
    """Local folder; the trained model is kept in a new folder inside, whatever happens to the tracking server. Checkpoints are there too,
    in ``checkpoints``."""

    def settings(self) -> dict[str, Any]:
        """What decides the weights that come out, on given samples."""
        others = {"samples", "tracking", "checkpoint", "log_every", "threads", "exchange_timeout_seconds", "profile", "output"}
        return self.model_dump(mode="json", exclude={**dict.fromkeys(others, True), "stream": {"workers"}})
