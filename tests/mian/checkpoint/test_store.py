"""A training that is stopped and goes on is the training that was never stopped."""

import datetime as dt
import logging
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mian.checkpoint.keys import TRAINER_VERSION, training_key
from mian.checkpoint.store import CONTENT, MANIFEST, CheckpointError, CheckpointStore
from mian.evaluation.scoring import evaluate_split
from mian.models import Mian
from mian.seeds import mixed_seed
from mian.training import Trainer, TrainingResult, TrainingStopped
from tests.support.curves import Curves
from tests.support.resumed import EVALUATE_SPLIT, STEPS, assert_same, best_after, stopped, store_of, trainer_of


@pytest.fixture(scope="module")
def undisturbed(samples: Any) -> tuple[TrainingResult, Curves]:
    curves = Curves()
    return trainer_of(samples, curves=curves).run(), curves


@pytest.mark.parametrize("steps", [[1], [20], [21], [STEPS], [64], [5, 6, 30, 100], [125]], ids=str)
def test_stopped_at_any_step_it_goes_on_as_if_it_had_not_been(
    samples: Any, undisturbed: tuple[TrainingResult, Curves], tmp_path: Path, steps: list[int]
) -> None:
    curves = Curves()
    for step in steps:
        assert stopped(trainer_of(samples, CheckpointStore(tmp_path, 2), step, curves)) == step
    trained, expected = undisturbed
    assert_same(trainer_of(samples, CheckpointStore(tmp_path, 2), curves=curves).run(), trained)
    for metric in ("train_logloss", "validation_logloss", "validation_auc", "epoch"):
        assert curves[metric] == expected[metric]


def test_killed_at_any_step_it_goes_on_from_the_checkpoint_before(
    samples: Any, undisturbed: tuple[TrainingResult, Curves], tmp_path: Path
) -> None:
    for step, goes_on_after in ((4, 0), (11, 0), (30, 10), (66, 25), (90, 65), (126, 85)):

        def killed(trainer: Trainer, step: int = step) -> bool:
            if trainer.progress.step + 1 == step:
                raise Killed
            return False

        store = CheckpointStore(tmp_path, 2)
        trainer = trainer_of(samples, store, stopping=killed, checkpoint={"every_steps": 5})
        assert trainer.progress.step == goes_on_after
        with pytest.raises(Killed):
            trainer.run()
    assert_same(trainer_of(samples, CheckpointStore(tmp_path, 2)).run(), undisturbed[0])


class Killed(BaseException):
    """A process that is gone from one moment to the next."""


@pytest.mark.parametrize(("scoring", "settings"), [(1, {}), (2, {}), (1, {"max_steps": 50}), (2, {"patience": 1})], ids=str)
def test_killed_while_scoring_it_goes_on_with_the_scoring_alone(
    samples: Any, tmp_path: Path, scoring: int, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"evaluations_per_epoch": 1, **settings}
    trainer = trainer_of(samples, CheckpointStore(tmp_path, 2), **settings)
    scored = []

    def killed(*arguments: Any) -> Any:
        scored.append(arguments)
        if len(scored) == scoring:
            raise Killed
        return evaluate_split(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(EVALUATE_SPLIT, killed)
        trainer.run()
    curves, undisturbed = Curves(), Curves()
    again = trainer_of(samples, CheckpointStore(tmp_path, 2), curves=curves, **settings)
    assert (again.progress.step, again.progress.evaluation_due) == (trainer.progress.step, True)
    assert_same(again.run(), trainer_of(samples, curves=undisturbed, **settings).run())
    step = trainer.progress.step
    assert (curves["validation_logloss"][step], curves["epoch"][step]) == (
        undisturbed["validation_logloss"][step],
        undisturbed["epoch"][step],
    )


def test_the_same_weights_scored_again_stay_the_best(samples: Any, tmp_path: Path) -> None:
    trainer = trainer_of(samples, CheckpointStore(tmp_path, 2), 30)
    assert stopped(trainer) == 30
    trainer._evaluate()
    for _ in range(2):  # as where another rank was killed while the best weights were written
        trainer._evaluate()
    assert (trainer.progress.best_step, trainer.progress.bad_evaluations) == (30, 0)


@pytest.mark.parametrize("name", ["din", "dien"])
def test_moving_averages_and_drawn_negatives_go_on_too(samples: Any, tmp_path: Path, name: str) -> None:
    model = {"name": name, "options": {"embedding_dim": 8, "mlp": [16, 8], "dropout": 0.3}}
    for step in (20, 64):
        assert stopped(trainer_of(samples, CheckpointStore(tmp_path, 2), step, model=model)) == step
    assert_same(trainer_of(samples, CheckpointStore(tmp_path, 2), model=model).run(), trainer_of(samples, model=model).run())


def test_a_training_that_had_ended_has_nothing_left_to_do(samples: Any, tmp_path: Path) -> None:
    ended = trainer_of(samples, CheckpointStore(tmp_path, 2)).run()
    again = trainer_of(samples, CheckpointStore(tmp_path, 2))
    assert again.progress.finished
    assert_same(again.run(), ended)


def test_a_checkpoint_of_another_release_is_refused(samples: Any, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 2)
    assert stopped(trainer_of(samples, store, 3)) == 3
    state = store.read("step", 3)
    state["model"]["mlp.0.weight"] = torch.zeros(2, 2)
    store.save("step", 3, state, 0)
    with pytest.raises(CheckpointError, match=r"another release of this program: mlp\.0\.weight differs; remove it"):
        trainer_of(samples, store)


def test_with_batches_of_another_size_the_rest_of_the_epoch_is_shared_out_anew(samples: Any, tmp_path: Path) -> None:
    assert stopped(trainer_of(samples, CheckpointStore(tmp_path, 2), 20)) == 20
    trainer = trainer_of(samples, CheckpointStore(tmp_path, 2), batch_size=100)
    (segment,) = trainer.progress.segments
    assert (segment.world_size, segment.batch_size, segment.steps) == (1, 32, 20)
    trained = trainer.run()
    first_epoch = (2036 - 20 * 32) // 100
    assert trained.steps == 20 + first_epoch + 2036 // 100
    assert trainer.progress.samples == 20 * 32 + (first_epoch + 20) * 100


@pytest.mark.parametrize("seed", [20261129, 1_764_390_000_000_000_000, 2**63 - 1])
def test_a_training_of_any_seed_goes_on_on_another_number_of_ranks(samples: Any, tmp_path: Path, seed: int) -> None:
    store = CheckpointStore(tmp_path, 2)
    assert stopped(trainer_of(samples, store, 5, seed=seed)) == 5
    state = store.read("step", 5)
    store.save("step", 5, state | {"ranks": state["ranks"] * 2}, 0)  # as two ranks leave it
    trainer = trainer_of(samples, store, 8, seed=seed)
    assert torch.initial_seed() == mixed_seed("dropout", seed, 0, 5)
    assert stopped(trainer) == 8


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_does_not_fit_in_64_bits_is_refused(samples: Any, seed: int) -> None:
    with pytest.raises(ValidationError, match=r"seed\n  Input should be (greater|less) than or equal to"):
        samples.config(seed=seed)


def test_less_than_a_batch_of_the_last_epoch_left_ends_the_training_with_an_evaluation(samples: Any, tmp_path: Path) -> None:
    assert stopped(trainer_of(samples, CheckpointStore(tmp_path, 2), STEPS - 1, epochs=1)) == STEPS - 1
    curves = Curves()
    trained = trainer_of(samples, CheckpointStore(tmp_path, 2), curves=curves, epochs=1, batch_size=100).run()
    assert trained.steps == STEPS - 1
    assert list(curves["validation_logloss"]) == [STEPS - 1]


def test_checkpoints_come_every_so_many_steps_and_after_each_epoch_and_the_newest_are_kept(samples: Any, tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Watched(CheckpointStore):
        def tidy(self, newest: int) -> None:
            super().tidy(newest)
            seen.append(self.steps())

    trained = trainer_of(samples, Watched(tmp_path, 3), checkpoint={"every_steps": 25}).run()
    assert seen == [[25], [25, 50], [25, 50, 63], [50, 63, 75], [63, 75, 100], [75, 100, 125], *2 * [[100, 125, 126]]]
    best = sorted(path.name for path in tmp_path.glob("best-*"))
    assert f"best-{trained.best_step:09d}" in best
    assert len(best) <= 3


def test_no_checkpoints_are_kept_where_none_are_wanted(samples: Any) -> None:
    trainer = trainer_of(samples, None, 5, checkpoint={"enabled": False})
    with pytest.raises(
        TrainingStopped, match=r"stopped after step 5; started again, it begins anew: checkpoint\.enabled is false"
    ):
        trainer.run()


def state_of(step: int, best_step: int | None = None) -> dict[str, Any]:
    """What a training has after a step; by default its weights are the best."""
    best_step = step if best_step is None else best_step
    progress = {"step": step, "best_step": best_step, "best": {"logloss": 1 / best_step}}
    model = {"weight": torch.full((2,), step + 0.5)}
    return {"weight": torch.full((3,), float(step)), "plain": {"a": [1, None, "x"]}, "model": model, "progress": progress}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Three checkpoints of a state."""
    store = CheckpointStore(tmp_path / "checkpoints", 3)
    for step in (10, 20, 30):
        best = {"model": {"weight": torch.full((2,), step + 0.5)}, "validation": {"logloss": 1 / step}}
        store.save("best", step, best, step)
        store.save("step", step, state_of(step), step)
        store.tidy(step)
    return store


def newest(store: CheckpointStore) -> float:
    state = store.newest()
    assert state is not None
    assert state["plain"] == {"a": [1, None, "x"]}
    assert state["best"]["weight"][0] == state["weight"][0] + 0.5
    return float(state["weight"][0])


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_off, flip_a_byte, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", [f"step-000000030/{CONTENT}", f"step-000000030/{MANIFEST}"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(
    store: CheckpointStore, damage: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest(store) == 30
    damage(store.folder / name)
    with caplog.at_level(logging.WARNING):
        assert newest(store) == 20
    assert name in caplog.text
    assert "the checkpoint before it is used" in caplog.text


@pytest.mark.parametrize("name", [CONTENT, MANIFEST])
def test_a_new_checkpoint_is_kept_before_a_later_one_that_was_damaged(store: CheckpointStore, name: str) -> None:
    cut_off(store.folder / "step-000000030" / name)
    one = CheckpointStore(store.folder, 1)
    one.save("step", 25, {"weight": torch.full((3,), 25.0), "plain": {"a": [1, None, "x"]}}, 0)
    one.tidy(25)
    assert [path.name for path in store.folder.iterdir()] == ["step-000000025"]
    assert store.read("step", 25)["weight"][0] == 25


def test_a_damaged_one_among_the_kept_does_not_take_the_place_of_one_that_can_be_read(store: CheckpointStore) -> None:
    cut_off(store.folder / "step-000000020" / MANIFEST)
    for newest_step, step_kept in ((30, 10), (40, 30)):
        if newest_step == 40:
            store.save("step", 40, state_of(40, 30), 30)
        CheckpointStore(store.folder, 2).tidy(newest_step)
        kept = {"step": {step_kept, newest_step}, "best": {step_kept, 30}}
        assert [step for step in store.steps() if step != 20] == sorted(kept["step"])
        assert set(store.steps("best")) == kept["best"]
        assert (20 in store.steps()) == (newest_step == 30)


@pytest.mark.parametrize("damage", [cut_off, flip_a_byte, Path.unlink])
@pytest.mark.parametrize("name", [CONTENT, MANIFEST])
def test_a_checkpoint_is_used_without_its_best_one_and_says_so(
    store: CheckpointStore, damage: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(store.folder / "best-000000030" / name)
    assert newest(store) == 30  # its own weights are the best
    store.save("step", 40, state_of(40, 30), 30)
    store.tidy(40)
    state = store.newest()
    assert state is not None
    assert (state["weight"][0], state["best"]["weight"][0]) == (40, 20.5)
    assert state["progress"] == {"step": 40, "best_step": 20, "best": {"logloss": 1 / 20}}
    assert f"best-000000030/{name}" in caplog.text
    assert "goes on after step 40 with the best weights before, of step 20" in caplog.text
    damage(store.folder / "best-000000020" / name)
    state = store.newest()
    assert state is not None
    assert (state["weight"][0], state["best"], state["progress"]) == (40, {}, {"step": 40})
    assert "goes on after step 40 without best weights" in caplog.text


class Full(CheckpointStore):
    """The disk is full whenever the best weights of a step are to be written, so many times."""

    def __init__(self, folder: Path, step: int, times: int) -> None:
        super().__init__(folder, 2)
        self._step, self._times = step, times

    def save(self, kind: Any, step: int, state: Any, best_step: int) -> None:
        if (kind, step) == ("best", self._step) and self._times:
            self._times -= 1
            raise CheckpointError(f"best-{step:09d}: the checkpoint cannot be written (no space left on device)")
        super().save(kind, step, state, best_step)


@pytest.mark.parametrize(("times", "best_step"), [(1, 42), (100, 21)])
def test_best_weights_that_could_not_be_written_cost_no_checkpoint(
    samples: Any, tmp_path: Path, times: int, best_step: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"epochs": 1, "checkpoint": {"every_steps": 5}}
    assert stopped(best_after(monkeypatch, trainer_of(samples, Full(tmp_path, 42, times), 61, **settings), 42, 63, 21)) == 61
    store = CheckpointStore(tmp_path, 2)
    assert store.steps() == [60, 61]
    assert best_step in store.steps("best")
    trainer = best_after(monkeypatch, trainer_of(samples, store, **settings), 42, 63, 21)
    assert (trainer.progress.step, trainer.progress.best_step) == (61, best_step)
    assert caplog.text.count("tries again at each next checkpoint") == 1
    trained, undisturbed = trainer.run(), best_after(monkeypatch, trainer_of(samples, **settings), 42, 63, 21).run()
    if times == 1:
        assert_same(trained, undisturbed)
    else:  # the best weights are gone: those of the last step are the best of the others
        assert (undisturbed.best_step, trained.best_step) == (42, 63)


def test_a_training_that_had_ended_without_readable_best_weights_has_its_last_ones(
    samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = best_after(monkeypatch, trainer_of(samples, CheckpointStore(tmp_path, 2)), 42).run()
    assert ended.best_step == 42
    for path in tmp_path.glob("best-*"):
        cut_off(path / CONTENT)
    again = best_after(monkeypatch, trainer_of(samples, CheckpointStore(tmp_path, 2)), 42)
    assert again.progress.finished
    trained = again.run()
    assert (trained.best_step, trained.steps) == (ended.steps, ended.steps)
    assert trained.validation["logloss"] > ended.validation["logloss"]


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_checkpoint_that_was_being_replaced_is_not_lost(
    store: CheckpointStore, renamed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > renamed - 1:
            raise Killed
        return rename(self, target)

    rename, calls = Path.rename, []
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", killed)
        store.save("step", 30, state_of(30), 30)
    assert newest(CheckpointStore(store.folder, 3)) == 30


def test_where_all_are_damaged_nothing_is_started_anew_in_silence(store: CheckpointStore) -> None:
    for path in store.folder.glob(f"step-*/{CONTENT}"):
        cut_off(path)
    with pytest.raises(CheckpointError, match=r"none of its 3 checkpoints can be read; remove the folder to start anew"):
        store.newest()


def test_halves_of_a_killed_process_are_never_read_and_go_with_the_next_checkpoint(store: CheckpointStore) -> None:
    half = store.folder / "step-000000040.part"
    half.mkdir()
    (half / CONTENT).write_bytes(b"half")
    assert newest(store) == 30
    store.tidy(30)
    assert not half.exists()
    assert newest(store) == 30


def test_code_in_a_checkpoint_is_not_run(store: CheckpointStore, tmp_path: Path) -> None:
    class Stranger:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    path = store.folder / "step-000000030"
    torch.save({"weight": Stranger()}, path / CONTENT)
    manifest = (path / MANIFEST).read_text()
    from mian.checkpoint.manifest import Manifest
    from mian.fingerprint import file_sha256

    changed = Manifest.model_validate_json(manifest).model_copy(update={"sha256": file_sha256(path / CONTENT)})
    (path / MANIFEST).write_text(changed.model_dump_json())
    assert newest(store) == 20
    assert not (tmp_path / "owned").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path / CONTENT, weights_only=True)


def test_a_folder_that_cannot_be_written_is_an_error_that_leaves_nothing(store: CheckpointStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/inside/step-000000001: the checkpoint cannot be written"):
        CheckpointStore(tmp_path / "file" / "inside", 2).save("step", 1, {}, 0)
    assert newest(store) == 30


FILL_THE_DISK = """
import pathlib, resource, sys, torch
from mian.checkpoint.store import CheckpointError, CheckpointStore
store = CheckpointStore(pathlib.Path(sys.argv[1]), 2)
store.save("step", 1, {"weight": torch.zeros(10)}, 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    store.save("step", 2, {"weight": torch.zeros(1_000_000)}, 0)
except CheckpointError as error:
    print(error)
print(store.newest()["weight"].shape, [path.name for path in store.folder.iterdir()])
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="files cannot be limited here")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path / "checkpoints")], capture_output=True, text=True, check=True
    )
    error, state = done.stdout.splitlines()
    assert "step-000000002: the checkpoint cannot be written" in error
    assert state == "torch.Size([10]) ['step-000000001']"


def test_a_training_whose_checkpoints_cannot_be_written_goes_on_and_says_so(
    samples: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        trained = trainer_of(samples, CheckpointStore(tmp_path / "file", 2), max_steps=10).run()
    assert trained.steps == 10
    assert "cannot be written" in caplog.text


def test_a_training_is_known_by_its_settings_and_the_days_that_it_uses(samples: Any) -> None:
    config, contract = samples.config(), samples.contract
    key = training_key(config, contract)
    later = contract.days[-1].model_copy(update={"day": contract.days[-1].day + dt.timedelta(days=30)})
    assert training_key(config, contract.model_copy(update={"days": (*contract.days, later)})) == key
    assert (
        training_key(samples.config(threads=2, log_every=3, stream={"workers": 5}, profile=True, output="elsewhere"), contract)
        == key
    )
    other = [samples.config(seed=1), samples.config(batch_size=16), samples.config(optimizer={"l2": 0.1})]
    assert len({key, *(training_key(one, contract) for one in other)}) == 4
    first = contract.days[0].model_copy(update={"files": contract.days[0].files[:1]})
    assert training_key(config, contract.model_copy(update={"days": (first, *contract.days[1:])})) != key


def test_a_training_is_known_by_the_code_that_decides_its_weights(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, contract = samples.config(), samples.contract
    keys = {training_key(config, contract)}
    with monkeypatch.context() as patch:
        patch.setattr("mian.checkpoint.keys.TRAINER_VERSION", TRAINER_VERSION + 1)
        keys.add(training_key(config, contract))
    din = training_key(samples.config(model={"name": "din"}), contract)
    monkeypatch.setattr(Mian, "weights_version", Mian.weights_version + 1)
    keys.add(training_key(config, contract))
    assert len(keys) == 3
    assert training_key(samples.config(model={"name": "din"}), contract) == din, "of another model's code it knows nothing"


def test_a_training_that_has_ended_is_given_more_epochs(samples: Any, tmp_path: Path) -> None:
    """With a constant learning rate it is the training that had them from the start."""
    for epochs in (1, 2):
        settings = {"optimizer": {"learning_rate": 3e-3}, "evaluations_per_epoch": 1, "epochs": epochs}
        trainer = trainer_of(samples, store := store_of(samples, tmp_path, settings), **settings)
        assert trainer.progress.step == (epochs - 1) * STEPS
        assert trainer.progress.planned_samples == epochs * STEPS * 32
        trained = trainer.run()
        store.clear()
        assert not store.folder.exists()
    assert_same(trained, trainer_of(samples, **settings).run())
    assert store_of(samples, tmp_path, settings).newest() is None, "the same command begins anew"
    (ended,) = (tmp_path / "ended").iterdir()
    assert f"step-{2 * STEPS:09d}" in [path.name for path in ended.iterdir()]


def test_more_epochs_are_no_more_steps_than_max_steps(samples: Any, tmp_path: Path) -> None:
    for epochs in (1, 3):
        settings: dict[str, Any] = {"epochs": epochs, "max_steps": 10}
        trainer = trainer_of(samples, store := store_of(samples, tmp_path, settings), **settings)
        assert trainer.progress.step == 0
        assert trainer.run().steps == 10
        store.clear()


def test_a_training_that_lost_its_patience_gets_it_back_with_more_epochs(
    samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"patience": 1, "epochs": 1}
    trainer = best_after(monkeypatch, trainer_of(samples, store := store_of(samples, tmp_path, settings), **settings), 21)
    stopped_at = trainer.run().steps
    assert stopped_at == 42
    store.clear()
    settings["epochs"] = 2
    again = trainer_of(samples, store_of(samples, tmp_path, settings), **settings)
    assert (again.progress.step, again.progress.bad_evaluations, again.progress.finished) == (stopped_at, 0, False)
    assert again.run().steps > stopped_at
