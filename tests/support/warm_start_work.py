"""A training that begins with a model of shorter vocabularies, on each rank."""

from pathlib import Path
from typing import Any

import torch

from mian.config import TrainConfig
from mian.contract import Contract, read_contract
from mian.distributed.collectives import Ranks
from mian.models import ClickModel, build
from mian.optim.optimizer import Optimizer
from mian.training import Trainer, open_streams
from tests.support.curves import Curves

FEWER = {"item": 9, "age": 1}


def shorter(contract: Contract, fewer: dict[str, int] = FEWER) -> Contract:
    """The contract as it was before the last values of some vocabularies."""
    vocabularies = (v.model_copy(update={"size": v.size - fewer.get(v.name, 0)}) for v in contract.vocabularies)
    return contract.model_copy(update={"vocabularies": tuple(vocabularies)})


def model_before(config: TrainConfig, contract: Contract) -> ClickModel:
    """A model of the shorter vocabularies, whose weights are all different."""
    torch.manual_seed(11)
    return build(config.model.name, shorter(contract), config.model.options).eval()


def moments_before(model: ClickModel, config: TrainConfig) -> dict[str, torch.Tensor]:
    """Moments that no training has had, all of them positive."""
    generator = torch.Generator().manual_seed(12)
    state = Optimizer(model, config.optimizer, Ranks()).state()
    return {name: torch.rand(value.shape, generator=generator).add(1e-3) for name, value in state.items()}


def begun(values: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """The whole weights before the first step, and after the training; and what each rank holds of tables."""
    config = TrainConfig.model_validate(values)
    contract = read_contract(config.samples)
    curves = Curves()
    trainer = Trainer(config, contract, open_streams(config, contract, ranks), ranks, curves)
    before = model_before(config, contract) if ranks.is_first else None
    moments = moments_before(model_before(config, contract), config) if ranks.is_first and config.init_moments else None
    Path(config.output).mkdir(parents=True, exist_ok=True)
    trainer.begin_with(before, moments)
    first = {name: weight.clone() for name, weight in trainer.whole_model().state_dict().items()}
    trained = trainer.run()
    return {
        "first": first,
        "curve": curves["train_logloss"],
        "validation": curves["validation_logloss"].get(0),
        "weights": trainer.whole_model().state_dict(),
        "table_rows": {name: len(table.weight) for name, table in trained.model.tables().items()},
    }
