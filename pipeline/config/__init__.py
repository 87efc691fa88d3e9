"""What a data set's YAML file under ``conf/data/`` may say."""

from pipeline.config.dataset import DataConfig, Quality, Sampling
from pipeline.config.fields import FieldConfig, Fields, HistoryConfig, VocabularyConfig
from pipeline.config.log import Log, LogKind, Negatives, RecordedHistory
from pipeline.config.sources import RECORDED, AttributeSource, Lookup, Source, column_place

__all__ = [
    "RECORDED",
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
    "RecordedHistory",
    "Sampling",
    "Source",
    "VocabularyConfig",
    "column_place",
]
