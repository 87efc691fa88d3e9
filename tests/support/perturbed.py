"""Models whose every weight shows."""

import torch

from mian.layers import BatchNormalization
from mian.models import ClickModel


def perturbed(model: ClickModel) -> ClickModel:
    """A model in evaluation mode, its biases and moving averages, which start from 0 and 1, moved so far that differences show."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
        for module in model.modules():
            if isinstance(module, BatchNormalization):
                module.moving[0].normal_()
                module.moving[1].uniform_(0.2, 2.0)
    return model.eval()
