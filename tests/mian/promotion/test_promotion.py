"""Promotions of trained models in a real store: each gate refuses what it is for, and lets through what is good."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
import torch
from mlflow.exceptions import MlflowException

from mian.contract import Contract, Day
from mian.contract.audit_verdict import AuditVerdict, verdict_path
from mian.contract.lineage import Lineage, Parent, UsedDay, lineage_of
from mian.models import ClickModel
from mian.promotion import run as module
from mian.promotion.alias import AliasError, champion_version
from mian.promotion.run import AlreadyServingError, Promotion, run_promotion, run_rollback
from mian.promotion.settings import PromotionConfig
from mian.serving import read_vocabularies, save_servable
from tests.factories import FIRST_DAY, SMALL_MODEL, make_model, rewrite, write_contract, write_samples
from tests.mian.conftest import Samples
from tests.support.stores import new_store

TEST_DAYS = ((900, 700), (800,))
#: In this small world little is known of a day.
LIMITS: dict[str, Any] = {
    "days": {"rows": 300},
    "comparison": {"logloss_margin": 0.02, "auc_margin": 0.02},
    "calibration": {"lowest": 0.85, "highest": 1.15},
    "slices": {"rows": 200, "fields": ["user_age"]},
    "latency": {"rounds": 15, "highest_ratio": 2.0},
}


@dataclass(frozen=True)
class World:
    """Samples that were audited, a model of them, and an empty store."""

    folder: Path
    samples: Path
    contract: Contract
    weights: dict[str, torch.Tensor]

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient()

    @property
    def lineage(self) -> Lineage:
        return lineage_of(self.contract, str(self.samples), "train", "validation", "code")

    def model(self, change: Callable[[ClickModel], object] = lambda model: None) -> ClickModel:
        model = make_model(self.contract)
        model.load_state_dict(self.weights)
        with torch.no_grad():
            change(model)
        return model

    def register(
        self,
        model: ClickModel | None = None,
        lineage: Lineage | None = None,
        options: dict[str, Any] | None = None,
        contract: Contract | None = None,
        name: str = "mian",
    ) -> str:
        """A new version with the alias ``newest``; its number."""
        number = len(self.client.search_model_versions("name = 'ctr'")) + 1
        contract = contract or self.contract
        folder = self.folder / f"version {number}"
        files = read_vocabularies(contract, str(self.samples))
        lineage = lineage or self.lineage
        chosen = dict(SMALL_MODEL) if options is None else options
        save_servable(folder, model or self.model(), name, chosen, contract, files, lineage=lineage)
        run = self.client.create_run(self.client.get_experiment_by_name("Default").experiment_id)
        version = self.client.create_model_version("ctr", str(folder), run.info.run_id)
        self.client.set_registered_model_alias("ctr", "newest", version.version)
        return str(version.version)

    def promote(self, dry_run: bool = False, samples: Path | None = None, **limits: Any) -> Promotion:
        settings = PromotionConfig.model_validate({"samples": str(samples or self.samples), **LIMITS, **limits})
        return run_promotion("ctr", "newest", settings, dry_run)

    @property
    def champion(self) -> str | None:
        return champion_version(self.client, "ctr", "champion")

    def audit(self, samples: Path | None = None, **findings: dict[str, int]) -> None:
        for day in self.contract.days:
            self.write_verdict(day, findings.get(f"day{(day.day - FIRST_DAY).days}", {}), samples)

    def write_verdict(self, day: Day | UsedDay, findings: dict[str, int], samples: Path | None = None) -> None:
        audited = dt.datetime.now(dt.timezone.utc)
        verdict = AuditVerdict(day=day.day, fingerprint=day.fingerprint, findings=findings, rules="r", audited=audited)
        path = (samples or self.samples) / verdict_path(day.day, day.fingerprint)
        path.parent.mkdir(exist_ok=True)
        path.write_text(verdict.model_dump_json())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contract, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("promoted")
    contract = write_samples(folder, test=TEST_DAYS)
    samples = Samples(folder, contract)
    trainer = samples.trainer(optimizer={"learning_rate": 1e-2}, epochs=6, test_split=None)
    trainer.run()
    return folder, contract, {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.fixture
def world(trained: tuple[Path, Contract, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    source, contract, weights = trained
    shutil.copytree(source, samples := tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(new_store(tmp_path / "mlflow.db"))
    world = World(tmp_path, samples, contract, weights)
    world.client.create_registered_model("ctr")
    world.audit()
    yield world
    mlflow.set_tracking_uri(before)


def gate(promotion: Promotion, name: str) -> Any:
    return next(gate for gate in promotion.decision.gates if gate.gate == name)


def refused_by(promotion: Promotion) -> set[str]:
    assert not promotion.is_moved
    return {gate.gate for gate in promotion.decision.failed}


def test_the_first_version_that_tells_something_is_promoted_and_the_decision_kept(world: World) -> None:
    version = world.register()
    promotion = world.promote()
    assert promotion.is_moved, promotion.decision.text()
    assert world.champion == version
    tags = world.client.get_model_version("ctr", version).tags
    assert (tags["mian.promotion"], tags["mian.promotion.champion"], tags["mian.promotion.reasons"]) == (
        "promoted",
        "none",
        "none",
    )
    document = json.loads(Path(mlflow.artifacts.download_artifacts(tags["mian.promotion.artifact"])).read_text())
    assert document["candidate"] == version
    assert document["evidence"]["rows"] == sum(map(sum, TEST_DAYS))
    run = world.client.get_model_version("ctr", version).run_id
    assert [file.path.endswith(".html") for file in world.client.list_artifacts(run, "promotion")].count(True) == 1


def test_an_equal_model_is_promoted_and_a_rollback_takes_it_back_for_good(world: World) -> None:
    first = world.register()
    world.promote()
    second = world.register()
    assert world.promote().is_moved
    assert world.champion == second
    with pytest.raises(AlreadyServingError):
        world.promote()
    assert run_rollback("ctr", "champion").startswith(f"ctr@champion is version {first} again")
    assert world.champion == first
    assert refused_by(world.promote()) == {"rollback"}
    with pytest.raises(AliasError):
        run_rollback("ctr", "champion")


def test_a_dry_run_leaves_no_trace(world: World) -> None:
    version = world.register()
    promotion = world.promote(dry_run=True)
    assert promotion.decision.is_promoted
    assert f"Dry run: version {version} of ctr passes every gate; it was not promoted." in promotion.page
    assert "serves as" not in promotion.page
    assert world.champion is None
    assert not any(tag.startswith("mian.promotion") for tag in world.client.get_model_version("ctr", version).tags)
    assert world.client.get_registered_model("ctr").tags == {}


@pytest.fixture
def champion(world: World) -> str:
    """A version that serves; drawing its page again in each test would take most of the time."""
    version = world.register()
    world.client.set_registered_model_alias("ctr", "champion", version)
    return version


def refused(world: World, champion: str, promotion: Promotion) -> set[str]:
    assert world.champion == champion
    assert all(gate.reason.endswith(".") and gate.remedy for gate in promotion.decision.failed)
    return refused_by(promotion)


def test_a_model_that_was_trained_on_the_days_is_refused(world: World, champion: str) -> None:
    everything = world.contract.model_copy(update={"splits": {**world.contract.splits, "all": everything_of(world.contract)}})
    world.register(lineage=lineage_of(everything, str(world.samples), "all", "validation", "code"))
    promotion = world.promote()
    assert refused(world, champion, promotion) == {"days"}
    assert f"no day after {world.contract.days[-1].day}" in promotion.decision.text().lower()
    assert "informative" not in promotion.decision.text()


def everything_of(contract: Contract) -> Any:
    return contract.splits["train"].model_copy(update={"last": contract.days[-1].day})


def test_a_model_whose_parent_has_seen_the_days_is_refused(world: World, champion: str) -> None:
    world.register(lineage=world.lineage.begun_with(Parent(source="ctr/9", seen=(everything_of(world.contract),), audit="clean")))
    assert refused(world, champion, world.promote()) == {"days"}


def test_a_model_that_does_not_say_its_days_is_refused(world: World, champion: str) -> None:
    world.register(lineage=world.lineage.begun_with(Parent(source="old", seen=None)))
    promotion = world.promote()
    assert refused(world, champion, promotion) == {"days"}
    assert "does not say which days" in gate(promotion, "days").reason


def test_days_that_are_not_final_are_not_used(world: World, champion: str) -> None:
    days = tuple(day.model_copy(update={"final": (day.day - FIRST_DAY).days < 6}) for day in world.contract.days)
    write_contract(world.samples, world.contract.model_copy(update={"days": days}))
    world.register()
    promotion = world.promote()
    assert promotion.decision.evidence is not None
    assert promotion.decision.evidence.days == 1
    assert promotion.decision.evidence.first == promotion.decision.evidence.last == FIRST_DAY + dt.timedelta(days=5)
    write_contract(
        world.samples, world.contract.model_copy(update={"days": tuple(day.model_copy(update={"final": False}) for day in days)})
    )
    world.register()
    assert refused_by(world.promote()) == {"days"}


@pytest.mark.parametrize(("most", "remedy"), [(7, "Wait until more days"), (1, "raise `days.most`")])
def test_too_few_rows_are_no_evidence(world: World, champion: str, most: int, remedy: str) -> None:
    world.register()
    promotion = world.promote(days={"rows": 10_000, "most": most})
    assert refused(world, champion, promotion) == {"days"}
    assert remedy in gate(promotion, "days").remedy


@pytest.mark.parametrize("day", ["day1", "day6"], ids=["trained on", "compared on"])
def test_leaked_samples_are_refused(world: World, champion: str, day: str) -> None:
    world.audit(**{day: {"leak": 3}})
    world.register()
    promotion = world.promote()
    assert refused(world, champion, promotion) == {"audit"}
    assert "found something on 2026-03-0" in gate(promotion, "audit").reason
    assert world.promote(audit="ignored").is_moved


def test_days_that_nobody_audited_are_refused_until_they_are(world: World, champion: str) -> None:
    shutil.rmtree(world.samples / "_audits")
    world.register()
    assert refused(world, champion, world.promote()) == {"audit"}
    world.audit()
    assert world.promote().is_moved, "a verdict that came after the training counts"


def test_a_parent_that_was_not_audited_is_refused(world: World, champion: str) -> None:
    world.register(lineage=world.lineage.begun_with(Parent(source="ctr/9", seen=(), audit="findings")))
    promotion = world.promote()
    assert refused(world, champion, promotion) == {"audit"}
    assert gate(promotion, "audit").remedy.startswith("Train the candidate again")


def test_what_an_audit_finds_on_the_days_of_a_parent_counts_after_the_training_too(world: World, champion: str) -> None:
    old = UsedDay(day=FIRST_DAY - dt.timedelta(days=1), fingerprint="old", use="train", audit="clean")
    world.register(lineage=world.lineage.begun_with(Parent(source="ctr/9", seen=(), audit="clean", days=(old,))))
    world.write_verdict(old, {"leak": 2})
    promotion = world.promote()
    assert refused(world, champion, promotion) == {"audit"}
    assert f"{old.day} (by ctr/9)" in gate(promotion, "audit").reason
    world.write_verdict(old, {})
    assert world.promote().is_moved


def test_predictions_that_are_off_are_refused(world: World, champion: str) -> None:
    world.register(world.model(lambda model: model.sampling_logit_correction.add_(0.6)))
    assert "calibration" in refused(world, champion, world.promote(comparison={"logloss_margin": 1.0, "auc_margin": 1.0}))


def test_a_worse_model_is_refused(world: World, champion: str) -> None:
    world.register(world.model(lambda model: [p.mul_(0.5) for p in model.dense_parameters().values()]))
    assert {"logloss"} <= refused(world, champion, world.promote(calibration={"lowest": 0.01, "highest": 9.0}))


def test_a_model_that_tells_nothing_is_refused_without_a_champion_too(world: World) -> None:
    world.register(world.model(lambda model: [p.zero_() for p in model.parameters()]))
    promotion = world.promote()
    assert "informative" in refused_by(promotion)
    assert " higher than that of the click rate of these rows" in gate(promotion, "informative").reason
    assert world.champion is None


def test_a_model_that_got_worse_for_some_users_is_refused(world: World, champion: str) -> None:
    def break_some(model: ClickModel) -> None:
        rows = next(iter(model.tables().values())).weight
        offset = sum(world.contract.vocabulary(name).size for name in ("item", "category"))
        rows[offset + 2 : offset + 3] += 1.5

    world.register(world.model(break_some))
    loose = {"comparison": {"logloss_margin": 5.0, "auc_margin": 1.0}, "calibration": {"lowest": 0.01, "highest": 90.0}}
    promotion = world.promote(**loose)
    failed = refused(world, champion, promotion)
    assert "slice user_age = '20s'" in failed
    assert not failed & {"logloss", "AUC", "informative", "slice user_age = '30s'"}
    assert "cannot tell" in {each.state for each in promotion.decision.gates if each.gate.startswith("slice ")}


def test_a_slow_and_large_model_is_refused(world: World, champion: str) -> None:
    options = {**SMALL_MODEL, "mlp": [4096, 2048]}
    world.register(make_model(world.contract, options=options), options=options)
    assert {"latency", "size"} <= refused(world, champion, world.promote())


def test_a_model_that_needs_other_requests_is_refused(world: World, champion: str) -> None:
    fields = tuple(field for field in world.contract.fields if field.column != "context_slot")
    contract = world.contract.model_copy(update={"fields": fields})
    write_contract(world.samples, contract)
    world.register(make_model(contract), contract=contract)
    promotion = world.promote()
    assert {"signature", "comparison"} <= refused(world, champion, promotion)
    assert "it does not take context_slot" in gate(promotion, "signature").reason


def test_a_model_of_other_samples_is_refused(world: World, champion: str) -> None:
    fields = tuple(field for field in world.contract.fields if field.column != "context_slot")
    contract = world.contract.model_copy(update={"fields": fields})
    world.register(make_model(contract), contract=contract)
    promotion = world.promote()
    assert {"signature", "comparison"} <= refused(world, champion, promotion)
    assert "The candidate cannot be scored on" in gate(promotion, "comparison").reason


def test_a_champion_that_moved_meanwhile_is_not_replaced(world: World, champion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other, judge = world.register(), module.judge
    candidate = world.register()

    def slow(*arguments: Any) -> Any:
        found = judge(*arguments)
        world.client.set_registered_model_alias("ctr", "champion", other)
        return found

    monkeypatch.setattr(module, "judge", slow)
    promotion = world.promote()
    assert refused_by(promotion) == {"champion"}
    assert world.champion == other
    assert world.client.get_model_version("ctr", candidate).tags["mian.promotion"] == "refused"


def test_the_page_says_the_outcome_first(world: World, champion: str) -> None:
    world.audit(day1={"label": 1})
    world.register()
    page = world.promote(dry_run=True).page
    before = page.index("<h2>")
    assert page.index("Refused: version 2 of ctr does not serve; version 1 stays champion.") < before
    assert page.index("gates refused it: audit.") < before
    assert page.index("Audit the samples") < page.index("<h2>", before + 1)
    assert "<script" not in page


def test_slices_of_what_the_samples_lack_are_an_error(world: World) -> None:
    world.register()
    with pytest.raises(Exception, match=r"slices\.fields: user_shoe_size: the samples have no such column"):
        world.promote(slices={"fields": ["user_shoe_size"]})


def with_test_days(world: World, **values: Any) -> None:
    """Write the contract with other values of the days that are compared on."""
    days = tuple(
        day.model_copy(update=values) if day.day in world.contract.splits["test"] else day for day in world.contract.days
    )
    write_contract(world.samples, world.contract.model_copy(update={"days": days}))


def test_days_with_clicks_alone_are_no_evidence(world: World, champion: str) -> None:
    contract = world.contract
    for day in contract.split("test"):
        for file in day.files:
            contract = rewrite(world.samples, contract, file.path, clicked)
    world.register(world.model(lambda model: [p.zero_() for p in model.parameters()]))
    promotion = world.promote()
    assert refused(world, champion, promotion) == {"days"}
    assert "no row is without a click" in gate(promotion, "days").reason


def clicked(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.array([1] * table.num_rows, pa.int32()))


@pytest.mark.parametrize("values", [{"rows": 0, "files": ()}, {"negatives_kept": 0.5}], ids=["empty", "thinned"])
def test_days_that_tell_nothing_are_refused(world: World, champion: str, values: dict[str, Any]) -> None:
    with_test_days(world, **values)
    world.register()
    promotion = world.promote()
    assert refused(world, champion, promotion) == {"days"}
    assert ("have no samples" if "rows" in values else "final with all its negatives") in gate(promotion, "days").reason


@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_a_model_without_scores_is_refused_and_named(world: World, who: str) -> None:
    broken = world.model(lambda model: [p.fill_(float("nan")) for p in model.dense_parameters().values()])
    first = world.register(broken if who == "champion" else None)
    world.client.set_registered_model_alias("ctr", "champion", first)
    world.register(broken if who == "candidate" else None)
    promotion = world.promote()
    assert refused(world, first, promotion) == {"comparison"}
    assert f"The {who} has no score (NaN) for 2,400 of 2,400 rows." == gate(promotion, "comparison").reason


def test_a_champion_that_does_not_say_its_days_is_told_from_a_candidate(world: World) -> None:
    first = world.register(lineage=world.lineage.begun_with(Parent(source="old", seen=None)))
    world.client.set_registered_model_alias("ctr", "champion", first)
    world.register()
    promotion = world.promote()
    assert refused(world, first, promotion) == {"days"}
    assert "or remove the alias" in gate(promotion, "days").remedy


def test_slices_of_one_user_cannot_tell(world: World, champion: str) -> None:
    contract = world.contract
    for day in contract.split("test"):
        for file in day.files:
            contract = rewrite(world.samples, contract, file.path, of_one_user)
    world.register()
    slices = [each for each in world.promote().decision.gates if each.gate.startswith("slice ")]
    assert {each.state for each in slices} == {"cannot tell"}
    assert any(each.reason.endswith("of one user.") for each in slices)


def of_one_user(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("user_key"), "user_key", pa.array([7] * table.num_rows, pa.int64()))


def test_a_version_whose_tags_cannot_be_written_serves_all_the_same(
    world: World, champion: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    version = world.register()

    def fail(*_: Any) -> None:
        raise MlflowException("the store is away")

    monkeypatch.setattr(mlflow.MlflowClient, "set_model_version_tag", fail)
    assert world.promote().is_moved
    assert world.champion == version
    assert f"ctr@champion is version {version}, which lacks tags: MlflowException: the store is away" in caplog.text
    world.register()
    with pytest.raises(MlflowException):
        world.promote(days={"rows": 10_000})
