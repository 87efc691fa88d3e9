"""What is served is what was trained: a model that takes raw values and holds its vocabularies.

Its way into MLflow's registry is :mod:`mian.serving.mlflow_export`, apart: MLflow takes seconds to import, and other ranks do without.
"""

from mian.scoring.raw_values import ServingInputError
from mian.scoring.servable_files import ServableError, read_vocabularies
from mian.serving.example import input_example
from mian.serving.explanation import explain, explain_sample, shown
from mian.serving.one_user import EncodedUser, OneUser
from mian.serving.servable import Servable, load_servable, save_servable

__all__ = [
    "EncodedUser",
    "OneUser",
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
