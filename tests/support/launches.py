"""What real ranks do for all tests that look at it: so many ranks are started once, as that takes longer than most of their works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.factories import spoil, write_samples
from tests.launcher import Works, left_by, work_on

STEPS = 100
GLOBAL_BATCH = 24
#: What models have that MIAN has not: moving averages, two tables.
MODELS: Mapping[str, dict[str, Any]] = {
    "din": {"name": "din", "options": {"embedding_dim": 8, "mlp": [16, 8], "unit": [8]}},
    "deepfm": {"name": "deepfm", "options": {"embedding_dim": 8, "mlp": [16, 8]}},
}


def configuration(samples: Any, /, ranks: int, tables: str = "replicated", **values: Any) -> dict[str, Any]:
    """A training whose global batches do not depend on the number of ranks, with all that is done to gradients switched on."""
    settings = {
        "batch_size": GLOBAL_BATCH // ranks,
        "stream": {"order": "global"},
        "optimizer": {"learning_rate": 3e-3, "l2": 1e-3, "l2_embedding": 1e-3, "clip_norm": 0.1},
        "tables": {"placement": tables},
        "max_steps": STEPS,
        "log_every": 1,
        "evaluation_batch_size": 50,
    }
    config: dict[str, Any] = samples.config(**{**settings, **values}).model_dump()
    return config


class Launches:
    """Works that are done when the first test asks for one of them, and once for all processes that run tests.

    Args:
        samples: what is trained on.
        folder: of all these processes.
    """

    def __init__(self, samples: Any, folder: Path) -> None:
        self._samples = samples
        self._folder = folder
        self.few_row_groups = folder / "few row groups"
        self._found: dict[tuple[int, bool], dict[str, list[Any]]] = {}

    def of(self, ranks: int, name: str) -> list[Any]:
        """What each of some ranks leaves of a work."""
        long = name not in self._works(ranks, long=False)
        assert not long or name in self._works(ranks, long=True), f"{ranks} ranks do no {name!r}"
        self._launch(ranks, long)
        return self._found[ranks, long][name]

    def _launch(self, ranks: int, long: bool) -> None:
        """Where it was not done before, here or in another process."""
        if (ranks, long) in self._found:
            return
        if long or ranks > 1:  # scores are of weights that one rank has trained
            self._launch(1, False)
        if ranks == 2:  # whose trainings go on where three ranks stopped
            self._launch(3, long)
        elif ranks == 3:
            self._launch(1, long)
        folder = self._folder / f"{ranks} ranks{', long' * long}"
        with FileLock(f"{folder}.lock"):
            if folder.exists():
                assert (folder / f"rank-{ranks - 1}-of-{ranks}.pt").exists(), f"{folder}: the ranks have failed before"
                self._found[ranks, long] = left_by(folder, ranks)
                return
            folder.mkdir()
            self._write_data()
            self._found[ranks, long] = work_on(folder, ranks, self._works(ranks, long))

    def _write_data(self) -> None:
        """Data sets that are like no other."""
        if (few := self._folder / "few rows").exists():
            return
        write_samples(few, train=[[20]])
        write_samples(self.few_row_groups, train=[[500]], validation=[[5]], test=[[2]])
        contract = write_samples(spoiled := self._folder / "spoiled")
        last = contract.split("validation")[-1].files[-1]  # the last rank scores the last rows
        spoil(spoiled, contract, last.path, "context_slot", [last.rows - 1], float("nan"))

    def _works(self, ranks: int, long: bool) -> Works:
        works: dict[tuple[int, bool], Callable[[], Works]] = {
            (1, False): self._of_one,
            (1, True): lambda: {"goes on, replicated": self._goes_on(1, "replicated", 30)},
            (2, False): self._of_two,
            (2, True): self._of_two_long,
            (3, False): self._of_three,
            (3, True): self._of_three_long,
            (4, False): self._of_four,
            (4, True): self._of_four_long,
        }
        return works[ranks, long]()

    def _of_one(self) -> Works:
        doubled = {"learning_rate": 4e-3, "learning_rate_tables": 6e-3, "schedule": "cosine"}
        return {
            "training, replicated": self._training(1),
            "never stopped": self._training(1, optimizer={"learning_rate": 3e-3, "tables": "rowwise_adagrad"}),
            "at twice the rate": self._training(1, optimizer=doubled, max_steps=40),
            "calibrated": self._training(1, optimizer={"learning_rate": 1e-2}, max_steps=150, calibration="platt"),
            "few row groups": self._few_row_groups(1),
            "goes on, sharded": self._goes_on(1, "sharded", 30),
            "scored rows": {"scored_rows": True},
        }

    def _of_two(self) -> Works:
        scaled = {"learning_rate": 2e-3, "learning_rate_tables": 3e-3, "learning_rate_scaling": "linear", "schedule": "cosine"}
        diverging = {"optimizer": {"learning_rate": 1e30}, "log_every": 4}
        found_late = {"samples": str(self._folder / "spoiled"), "max_steps": 2}
        return {
            "exchange": {"exchange": True},
            "waits": {"waits": True},
            "training, sharded": self._training(2, "sharded"),
            "training, replicated, fp16": self._training(2, "replicated", "fp16"),
            "goes on, sharded": self._goes_on(2, "sharded"),
            "at a scaled rate": self._training(2, optimizer=scaled, max_steps=40),
            "din": self._model("din", "replicated"),
            "deepfm": self._model("deepfm", "sharded"),
            "calibration, replicated": self._calibration("replicated"),
            "calibration, sharded": self._calibration("sharded"),
            "few rows": {"fails": True, **self._training(2, samples=str(self._folder / "few rows"))},
            "another learning rate": {"fails": True, **self._training(2), "last_rank": {"optimizer": {"learning_rate": 3e-4}}},
            "checkpoints on one rank": {"fails": True, **self._training(2), "last_rank": {"checkpoint": {"enabled": False}}},
            "another contract": {"fails": True, **self._training(2), "published": True},
            "no score": {"fails": True, **self._training(2, **found_late)},
            **{
                f"diverges, {tables}, {compression}": {"fails": True, **self._training(2, tables, compression, **diverging)}
                for tables, compression in [
                    ("replicated", "none"),
                    ("sharded", "none"),
                    ("replicated", "fp16"),
                    ("sharded", "fp16"),
                    ("replicated", "bf16"),
                ]
            },
        }

    def _of_two_long(self) -> Works:
        return {
            "training, replicated": self._training(2),
            "training, sharded, fp16": self._training(2, "sharded", "fp16"),
            "training, replicated, bf16": self._training(2, "replicated", "bf16"),
            "scores, replicated": self._scores("replicated"),
            "scores, sharded": self._scores("sharded"),
            "goes on, replicated": self._goes_on(2, "replicated"),
            "scored rows": {"scored_rows": True},
            # at ten times the rate, where rounding grows from step to step
            **{
                f"fast, {compression}": self._training(
                    2, "replicated", compression, batch_size=24, optimizer={"learning_rate": 1e-2}
                )
                for compression in ("none", "fp16", "bf16")
            },
        }

    def _of_three(self) -> Works:
        return {
            "goes on, sharded": self._goes_on(3, "sharded", 60),
            "scores, sharded": self._scores("sharded"),
            "calibration, sharded": self._calibration("sharded"),
            "few row groups": self._few_row_groups(3),
            "scored rows": {"scored_rows": True},
        }

    def _of_three_long(self) -> Works:
        return {"goes on, replicated": self._goes_on(3, "replicated", 60), "scores, replicated": self._scores("replicated")}

    def _of_four(self) -> Works:
        return {"training, replicated": self._training(4), "scores, replicated": self._scores("replicated")}

    def _of_four_long(self) -> Works:
        return {
            "exchange": {"exchange": True},
            "training, sharded": self._training(4, "sharded"),
            "training, sharded, bf16": self._training(4, "sharded", "bf16"),
            "training, replicated, fp16": self._training(4, "replicated", "fp16"),
            "training, replicated, bf16": self._training(4, "replicated", "bf16"),
            "scores, sharded": self._scores("sharded"),
            "scored rows": {"scored_rows": True},
        }

    def _training(self, ranks: int, tables: str = "replicated", compression: str = "none", **values: Any) -> dict[str, Any]:
        config = configuration(self._samples, ranks, tables, **values)
        config["optimizer"]["compression"] = compression
        return {"config": config}

    def _model(self, name: str, tables: str) -> dict[str, Any]:
        values = {
            "model": MODELS[name],
            "tables": {"placement": tables},
            "optimizer": {"learning_rate": 1e-2},  # so that scores come to differ by more than rounding
            "max_steps": 30,
            "evaluation_batch_size": 50,
        }
        return {"config": self._samples.config(**values).model_dump()}

    def _few_row_groups(self, ranks: int) -> dict[str, Any]:
        return self._training(ranks, samples=str(self.few_row_groups), max_steps=6)

    def _goes_on(self, ranks: int, tables: str, stop_at: int | None = None) -> dict[str, Any]:
        """A part of a training, which goes on on another number of ranks."""
        optimizer = {"learning_rate": 3e-3, "tables": "rowwise_adagrad"}
        part = self._training(ranks, tables, checkpoint={"enabled": True}, optimizer=optimizer)
        return {**part, "checkpoints": str(self._folder / f"checkpoints, {tables}"), "stop_at": stop_at}

    def _scores(self, tables: str) -> dict[str, Any]:
        """Of the test split, by the weights that one rank has trained."""
        trained = self._folder / "1 ranks" / "rank-0-of-1.pt"
        return {**self._training(1, tables), "weights": [str(trained), "training, replicated"]}

    def _calibration(self, tables: str) -> dict[str, Any]:
        """On the validation split, of weights that one rank has trained until they tell clicks from the rest."""
        scores = self._scores(tables)
        return {**scores, "weights": [scores["weights"][0], "calibrated"], "calibrates": True}
