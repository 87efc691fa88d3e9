"""Which training comes next, and what is remembered of those that ended."""

from typing import Any

import pytest
from filelock import Timeout

from mian.experiments import Experiment, ExperimentError
from mian.experiments.trials import RESULT, Result, Trial

RATE = "optimizer.learning_rate"
GRID = {RATE: [1e-3, 1e-2]}


def end(trial: Trial, logloss: float) -> None:
    """As a training that has ended leaves it."""
    trial.keep(Result(validation={"logloss": logloss}))
    trial.model.mkdir(parents=True)


def end_grid(experiment: Experiment) -> None:
    """The second point of every variant is the better one."""
    for variant, point in experiment.config.points_by_variant():
        end(experiment.trial(variant, point, 1), 0.5 - dict(point).get(RATE, 0.0))


def names(experiment: Experiment) -> list[tuple[str, float, int]]:
    return [(trial.variant, dict(trial.point).get(RATE, 0.0), trial.seed) for trial in experiment.open_trials()]


def test_the_grid_comes_first_and_then_the_other_seeds_at_its_best_point(make_experiment: Any) -> None:
    experiment = make_experiment(grid=GRID, extra_models={})
    variants = ("LR", "MIAN", "w/o GIM")
    grid_trials = [*((variant, rate, 1) for variant in variants[:1] for rate in (1e-3, 1e-2)), ("DIN", 0.0, 1)]
    grid_trials += [(variant, rate, 1) for variant in variants[1:] for rate in (1e-3, 1e-2)]
    assert names(experiment) == grid_trials
    end_grid(experiment)
    assert names(experiment) == [("LR", 1e-2, 2), ("DIN", 0.0, 2), ("MIAN", 1e-2, 2), ("w/o GIM", 1e-2, 2)]


def test_a_line_whose_points_have_all_ended_needs_not_wait_for_the_others(make_experiment: Any) -> None:
    experiment = make_experiment(grid=GRID, extra_models={})
    for point in experiment.config.points("LR"):
        end(experiment.trial("LR", point, 1), 0.4)
    assert ("LR", 1e-3, 2) in names(experiment)
    assert experiment.chosen("MIAN") == []


def test_lines_that_ask_for_the_same_training_share_it(make_experiment: Any) -> None:
    experiment = make_experiment(ablations={"again": {"name": "din", "training": {"optimizer": {"learning_rate": 5e-3}}}})
    point = experiment.config.points("DIN")[0]
    assert experiment.trial("again", point, 1).folder == experiment.trial("DIN", point, 1).folder
    assert "again" not in {trial.variant for trial in experiment.open_trials()}
    assert experiment.trial("DIN", point, 2).folder != experiment.trial("DIN", point, 1).folder


def test_the_best_point_has_the_lowest_logloss_and_one_that_failed_has_none(make_experiment: Any) -> None:
    experiment = make_experiment(grid={RATE: [1e-3, 1e-2, 1e-1]})
    low, middle, high = experiment.config.points("LR")
    end(experiment.trial("LR", low, 1), 0.4)
    end(experiment.trial("LR", middle, 1), 0.3)
    assert experiment.best_point("LR") is None
    experiment.trial("LR", high, 1).keep(Result(failed="the loss is nan"))
    assert experiment.best_point("LR") == middle
    assert [trial.seed for trial in experiment.chosen("LR")] == [1, 2]


def test_a_line_all_of_whose_points_failed_is_an_error(make_experiment: Any) -> None:
    experiment = make_experiment(grid=GRID)
    for point in experiment.config.points("LR"):
        experiment.trial("LR", point, 1).keep(Result(failed="the loss is nan"))
    with pytest.raises(ExperimentError, match="LR: no training of the grid came to an end"):
        experiment.best_point("LR")


def test_each_process_takes_a_training_that_no_other_has(make_experiment: Any) -> None:
    mine, theirs = (
        make_experiment(grid={}, ablations={}, extra_models={}, seeds=[1]),
        make_experiment(grid={}, ablations={}, extra_models={}, seeds=[1]),
    )
    claimed = [experiment.claim() for experiment in (mine, theirs, mine)]
    assert [claim[0].variant for claim in claimed] == ["LR", "DIN", "MIAN"]
    with pytest.raises(Timeout):
        theirs.claim()
    claimed[1][1].release()  # as the system does where a process is killed
    assert mine.claim()[0].variant == "DIN"
    for trial, lock in claimed:
        end(trial, 0.5)
        lock.release()
    assert theirs.claim() is None


def test_a_chosen_training_whose_model_is_gone_is_open_again(make_experiment: Any) -> None:
    experiment = make_experiment(grid=GRID, seeds=[1])
    end_grid(experiment)
    assert names(experiment) == []
    worse, better = (experiment.trial("LR", point, 1) for point in experiment.config.points("LR"))
    worse.model.rmdir()
    assert names(experiment) == []
    better.model.rmdir()
    assert names(experiment) == [("LR", 1e-2, 1)]


def test_a_damaged_result_is_named(make_experiment: Any) -> None:
    experiment = make_experiment()
    trial = next(experiment.open_trials())
    trial.keep(Result())
    (trial.folder / RESULT).write_text('{"steps": ')
    with pytest.raises(ExperimentError, match=rf"{RESULT} is damaged .* delete .*{trial.folder.name}"):
        trial.result()
