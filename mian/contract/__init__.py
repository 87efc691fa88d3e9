"""What a sample is: the one thing that ``pipeline`` and ``mian`` both know.

``build_samples`` writes a :class:`Contract` beside the Parquet files. Training, scoring and serving read it and nothing else.
This package needs neither Spark nor torch.
"""

from mian.contract.decoder import decode_row
from mian.contract.document import (
    CONTRACT_FILE,
    FORMAT,
    VERSION,
    Contract,
    ContractError,
    Day,
    Field,
    History,
    Label,
    Matched,
    NumericTransform,
    Publication,
    Quality,
    Reference,
    SampleFile,
    Split,
    Vocabulary,
    read_contract,
)
from mian.contract.encoder import (
    PADDING_ID,
    UNKNOWN_ID,
    Encoder,
    vocabulary_from_parquet,
    vocabulary_to_parquet,
    vocabulary_values,
)

__all__ = [
    "CONTRACT_FILE",
    "FORMAT",
    "PADDING_ID",
    "UNKNOWN_ID",
    "VERSION",
    "Contract",
    "ContractError",
    "Day",
    "Encoder",
    "Field",
    "History",
    "Label",
    "Matched",
    "NumericTransform",
    "Publication",
    "Quality",
    "Reference",
    "SampleFile",
    "Split",
    "Vocabulary",
    "decode_row",
    "read_contract",
    "vocabulary_from_parquet",
    "vocabulary_to_parquet",
    "vocabulary_values",
]
