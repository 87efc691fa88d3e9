"""What a data set's YAML file under ``conf/data/`` may say."""

from pipeline.config.dataset import DataConfig, Quality, Sampling
from pipeline.config.fields import FieldConfig, Fields, HistoryConfig, VocabularyConfig
from pipeline.config.log import Log, LogKind, Negatives
from pipeline.config.sources import AttributeSource, Lookup, Source

__all__ = [
    "AttributeSource",
    "DataConfig",
    "FieldConfig",
    "Fields",
    "HistoryConfig",
    "Log",
    "LogKind",
    "Lookup",
    "Negatives",
    "Quality",
    "Sampling",
    "Source",
    "VocabularyConfig",
]
