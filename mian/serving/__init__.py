"""What is served is what was trained: a model that takes raw values and holds its vocabularies."""

from mian.serving.explanation import explain, shown
from mian.serving.log import log_servable
from mian.serving.rows import ServingInputError
from mian.serving.servable import Servable, ServableError, load_servable, read_vocabularies, save_servable
from mian.serving.signature import input_example, signature

__all__ = [
    "Servable",
    "ServableError",
    "ServingInputError",
    "explain",
    "input_example",
    "load_servable",
    "log_servable",
    "read_vocabularies",
    "save_servable",
    "shown",
    "signature",
]
