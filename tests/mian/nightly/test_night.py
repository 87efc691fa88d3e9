"""The plan of a night and the marks of its steps; whole nights are in tests/e2e/test_nights.py."""

import datetime as dt
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.configuration import load_config
from mian.contract import Split
from mian.contract.lineage import Lineage, UsedDay
from mian.nightly.plan import NightError, make_plan, read_plan, settings_fingerprint, write_plan
from mian.nightly.settings import NightlyConfig
from mian.nightly.steps import Night, text_override
from mian.promotion.settings import PromotionConfig

DAY = dt.date(2026, 2, 10)


def day(number: int) -> dt.date:
    return dt.date(2026, 2, number)


def config(**values: Any) -> NightlyConfig:
    defaults = {"data": "d.yaml", "train": "t.yaml", "promotion": "p.yaml", "output": "nights", "first_day": "2026-01-01"}
    return NightlyConfig.model_validate({**defaults, **values})


def trained_up_to(last: dt.date) -> Lineage:
    days = tuple(
        UsedDay(day=last - dt.timedelta(days=n), fingerprint="f", use=use, audit="clean")
        for n, use in ((1, "train"), (0, "train"), (-1, "validation"))
    )
    return Lineage(
        samples="s",
        contract="c",
        generation=1,
        vocabulary_version=1,
        fields_fingerprint="f",
        config_fingerprint="f",
        code_fingerprint="f",
        days=days,
        seen=(Split(first=days[0].day, last=days[-1].day),),
    )


def test_a_first_night_trains_on_the_window_and_leaves_final_days_to_compare_on() -> None:
    plan = make_plan(DAY, config(window_days=14, test_days=2), "s", None, None)
    assert plan.test == Split(first=day(8), last=day(9)), "the labels of the last day are not final"
    assert plan.validation == Split(first=day(7), last=day(7))
    assert plan.train == Split(first=dt.date(2026, 1, 1), last=day(6))
    assert (plan.champion, plan.window_days) == (None, 14)
    assert "splits.train.last=2026-02-06" in plan.overrides


def test_a_warm_start_gets_the_days_since_those_of_the_champion() -> None:
    plan = make_plan(DAY, config(), "s", "models:/mian/3", trained_up_to(day(4)))
    assert plan.train.last == day(7)
    assert (plan.champion, plan.window_days) == ("models:/mian/3", 3), "also those of nights whose version was refused"
    anew = make_plan(DAY, config(begin_with="nothing", window_days=9), "s", "models:/mian/3", trained_up_to(day(4)))
    assert (anew.champion, anew.window_days) == (None, 9)


@pytest.mark.parametrize(
    ("values", "champion", "lineage", "said"),
    [
        ({"first_day": "2026-02-08"}, None, None, "no training day is left"),
        ({}, "models:/mian/3", trained_up_to(day(7)), "no day is left to train on"),
        ({}, "models:/mian/3", None, "does not say its training days"),
        (
            {"begin_with": "nothing"},
            "models:/mian/3",
            None,
            "does not say its training days, so that nothing can be compared with it",
        ),
        (
            {"begin_with": "nothing"},
            "models:/mian/3",
            trained_up_to(day(8)),
            "chosen by days up to 2026-02-09, so that it cannot be compared",
        ),
    ],
)
def test_a_night_without_days_is_refused(
    values: dict[str, Any], champion: str | None, lineage: Lineage | None, said: str
) -> None:
    with pytest.raises(NightError, match=said):
        make_plan(DAY, config(**values), "s", champion, lineage)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    plan = make_plan(DAY, config(), "s", None, None)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(NightError, match="damaged; remove the folder"):
        read_plan(tmp_path)


def test_another_configuration_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d", "t", "p"):
        Path(f"{name}.yaml").write_text(f"{name}: 1\n")
    first = settings_fingerprint(config(), [])
    assert settings_fingerprint(config(), []) == first
    assert settings_fingerprint(config(), ["a=1"]) != first
    Path("t.yaml").write_text("t: 2\n")
    assert settings_fingerprint(config(), []) != first


def test_a_step_is_done_once_and_again_where_an_earlier_one_came_out_differently(tmp_path: Path) -> None:
    done: list[str] = []

    def work(name: str, result: int) -> Any:
        return lambda: done.append(name) or {"result": result}

    def night(first: int, plan: str = "plan") -> Night:
        night = Night(tmp_path, plan)
        night.step("build", work("build", first))
        night.step("train", work("train", 2))
        return night

    night(1)
    assert [mark.result for mark in night(7).marks] == [{"result": 1}, {"result": 2}]
    assert done == ["build", "train"]
    (tmp_path / "marks" / "1-build.json").unlink()
    night(7)
    assert done == ["build", "train", "build", "train"]
    night(7, plan="another")
    assert len(done) == 6


def test_a_step_that_fails_leaves_no_mark(tmp_path: Path) -> None:
    night = Night(tmp_path, "plan")

    def fail() -> dict[str, Any]:
        raise NightError("no")

    with pytest.raises(NightError):
        night.step("build", fail)
    assert not list(tmp_path.rglob("*.json"))
    (tmp_path / "marks").mkdir(exist_ok=True)
    (tmp_path / "marks" / "1-build.json").write_text("{")
    with pytest.raises(NightError, match="damaged"):
        Night(tmp_path, "plan").step("build", fail)


@pytest.mark.parametrize("path", ["/data/a: b/x", "/data/[1]", "2026", "/data/ü #1", "{x}", "null", '"quoted"'])
def test_a_path_of_any_name_is_a_text_to_a_job(tmp_path: Path, path: str) -> None:
    (tmp_path / "p.yaml").write_text("samples: x\n")
    config = load_config(PromotionConfig, str(tmp_path / "p.yaml"), [text_override("samples", path)])
    assert config.samples == path


def test_a_job_s_error_is_told_with_its_log(tmp_path: Path) -> None:
    night = Night(tmp_path, "plan")
    program = "print('working'); print('error: no room'); raise SystemExit(1)"
    with pytest.raises(NightError, match=r"audit: exit code 1, error: no room; .*audit\.log"):
        night.job("audit", [sys.executable, "-c", program])
    assert "working" in (tmp_path / "logs" / "audit.log").read_text()
    assert night.job("audit", [sys.executable, "-c", program], good=(0, 1)) == 1
    with pytest.raises(NightError, match="can go on; start the night again"):
        night.job("train", [sys.executable, "-c", "raise SystemExit(75)"])
    with pytest.raises(NightError, match="no-such-command cannot be started"):
        night.job("build", ["no-such-command"])


def test_a_job_ends_with_a_night_that_is_asked_to_stop(tmp_path: Path) -> None:
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    began, before = time.monotonic(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(NightError, match="evaluate: it was asked to stop and can go on; start the night again"):
        Night(tmp_path, "plan").job("evaluate", [sys.executable, "-c", program])
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGTERM) is before
