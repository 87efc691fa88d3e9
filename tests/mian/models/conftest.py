"""Random batches for small contracts, and models whose weights are large enough for a difference to show."""

from collections.abc import Callable

import pytest
import torch

from mian.contract import Contract
from mian.models import ClickModel, Mian, MianConfig
from tests import factories
from tests.factories import CONTRACTS

Batch = dict[str, torch.Tensor]


@pytest.fixture
def contract() -> Contract:
    return CONTRACTS["all groups"]


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return factories.make_batch


@pytest.fixture
def make_model() -> Callable[..., Mian]:
    """A model in evaluation mode, its weights drawn wide enough that its logits are far apart."""

    def make(contract: Contract, **options: object) -> Mian:
        torch.manual_seed(1)
        model = Mian(contract, MianConfig(**{"embedding_dim": 4, "global_dim": 10, "init_std": 0.5, **options}))
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:  # biases and layer normalization, which start at 0 and 1
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return make


@pytest.fixture
def loss_of() -> Callable[[ClickModel, Batch], torch.Tensor]:
    def loss(model: ClickModel, batch: Batch) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch["label"].float())

    return loss
