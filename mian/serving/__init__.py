"""What is served is what was trained: a model that takes raw values and holds its vocabularies.

Its way into MLflow's registry is :mod:`mian.serving.mlflow_export`, apart: MLflow takes seconds to import, and other ranks do without.
"""

from mian.serving.example import input_example
from mian.serving.explanation import explain, explain_sample, shown
from mian.serving.request_encoder import ServingInputError
from mian.serving.servable import Servable, ServableError, load_servable, read_vocabularies, save_servable

__all__ = [
    "Servable",
    "ServableError",
    "ServingInputError",
    "explain",
    "explain_sample",
    "input_example",
    "load_servable",
    "read_vocabularies",
    "save_servable",
    "shown",
]
