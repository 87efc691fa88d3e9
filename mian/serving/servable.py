"""A trained model as a folder that needs nothing else: weights, options, contract and vocabularies."""

from __future__ import annotations

import glob
import hashlib
import pickle
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import nn

from mian.contract import CONTRACT_FILE, Contract, read_contract
from mian.contract.lineage import Lineage
from mian.fingerprint import file_sha256
from mian.models import ClickModel, restore
from mian.scoring.servable_files import MODEL_FILE, ModelDescription, ServableError, read_description, vocabulary_tables
from mian.serving.request_encoder import RowEncoder
from mian.serving.tensors import probabilities, tensors

WEIGHTS_FILE = "weights.pt"
VOCABULARIES = "vocabularies"

ROWS_PER_BATCH = 4096


class Servable:
    """A trained model that takes raw values; see :func:`load_servable`.

    Args:
        contract: what the model was trained on.
        model: the model, on the CPU.
        vocabularies: for each vocabulary that is a table its values in the order of their ids.
        stand_ins: what is read where a request leaves out a field of the context, see
            :class:`mian.scoring.servable_files.ModelDescription`, likewise ``weights_sha256``.
        weights_sha256: of the file of weights.
        lineage: what the model was made from.

    Attributes:
        contract: what the model was trained on.
        model: the model, on the CPU.
        vocabularies: for each vocabulary that is a table its values in the order of their ids.
        stand_ins: what is read where a request leaves out a field of the context, by column.
        weights_sha256: of the file of weights; empty where it is not known.
        lineage: what the model was made from; None where that is not known.
    """

    def __init__(
        self,
        contract: Contract,
        model: ClickModel,
        vocabularies: Mapping[str, pa.Array],
        stand_ins: Mapping[str, int | float] | None = None,
        weights_sha256: str = "",
        lineage: Lineage | None = None,
    ) -> None:
        self.contract = contract
        self.lineage = lineage
        self.weights_sha256 = weights_sha256
        self.stand_ins = dict(stand_ins or {})
        self.vocabularies = dict(vocabularies)
        self.model = model.eval()
        self._rows = RowEncoder(contract, vocabularies, self.stand_ins)

    def values(self, raw: pd.DataFrame) -> list[dict[str, Any]]:
        """Raw rows as the model reads them, by column: ids as text, numbers, lists of these, None where nothing is known.

        Args:
            raw: raw rows, see :class:`mian.serving.request_encoder.RowEncoder`.

        Raises:
            ServingInputError: the rows are not what the model takes.
        """
        rows: list[dict[str, Any]] = pa.table(self._rows.columns(raw)).to_pylist()
        return rows

    def explain(self, raw: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
        """The attention weights behind the scores, see :meth:`mian.models.ClickModel.explain`; each of N rows.

        Args:
            raw: raw rows, see :class:`mian.serving.request_encoder.RowEncoder`.

        Raises:
            ServingInputError: the rows are not what the model takes.
        """
        parts: dict[str, list[npt.NDArray[np.float64]]] = {}
        with torch.inference_mode():
            for columns in self._rows.batches(raw, ROWS_PER_BATCH):
                weights = self.model.explain(tensors(columns))
                for name, weight in weights.items():
                    parts.setdefault(name, []).append(weight.double().numpy())
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def predict_proba(self, raw: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The probability of a click.

        Args:
            raw: raw rows, see :class:`mian.serving.request_encoder.RowEncoder`.

        Returns:
            Shape ``(N,)``: the sigmoid of the model's float32 logits.

        Raises:
            ServingInputError: the rows are not what the model takes.
        """
        parts = [np.empty(0, np.float64)]
        with torch.inference_mode():
            for columns in self._rows.batches(raw, ROWS_PER_BATCH):
                parts.append(probabilities(self.model(tensors(columns))))
        return np.concatenate(parts)


def save_servable(
    folder: str | Path,
    model: nn.Module,
    model_name: str,
    options: Mapping[str, Any],
    contract: Contract,
    vocabularies: Mapping[str, bytes],
    stand_ins: Mapping[str, int | float] | None = None,
    lineage: Lineage | None = None,
) -> None:
    """Write a trained model as a servable folder, and build it once of what was written, to see that it can be.

    The folder appears when it is complete; one that was there is replaced. One process at a time may write it: what another one left that
    was killed meanwhile is removed.

    Args:
        folder: where to, a local path.
        model: the trained model, as ``mian.models.registry.build(model_name, contract, options)`` makes it.
        model_name: its name in the registry.
        options: its options, JSON values.
        contract: what it was trained on.
        vocabularies: their files, see :func:`mian.scoring.servable_files.read_vocabularies`; read them before training, for the data set
            may be built anew meanwhile.
        stand_ins: what is read where a request leaves out a field of the context, see
            :func:`mian.scoring.stand_ins.serving_stand_ins`.
        lineage: what it was made from, see :func:`mian.contract.lineage.lineage_of`; None where that is not known.

    Raises:
        ServableError: the weights are not those of such a model.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        shutil.rmtree(left, ignore_errors=True)
    description = ModelDescription(name=model_name, options=dict(options), stand_ins=dict(stand_ins or {}), lineage=lineage)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write(staging, model, description, contract, vocabularies)
        _load_model(staging, contract)
        staging.chmod(0o755)  # mkdtemp's folders are the owner's alone
        _replace(target, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_servable(folder: str | Path) -> Servable:
    """Read a servable folder; the model runs on the CPU. Its weights stay in their file, of which what is looked up is read.

    Args:
        folder: what :func:`save_servable` wrote.

    Raises:
        ServableError: a file is missing or damaged.
        ContractError: the contract cannot be read.
    """
    contract, model = load_click_model(folder)
    description = read_description(Path(folder))
    vocabularies = vocabulary_tables(contract, str(folder))
    return Servable(contract, model, vocabularies, description.stand_ins, description.weights_sha256, description.lineage)


def load_click_model(folder: str | Path) -> tuple[Contract, ClickModel]:
    """Read the contract and the model of a servable folder, without the vocabularies; see :func:`load_servable`.

    Raises:
        ServableError: a file is missing or damaged.
        ContractError: the contract cannot be read.
    """
    contract = read_contract(str(folder))
    return contract, _load_model(Path(folder), contract)


def servable_files(folder: str | Path) -> tuple[str, ...]:
    """The files that make up a servable model, relative to its folder.

    Raises:
        ContractError: the contract cannot be read.
    """
    vocabularies = (vocabulary.path for vocabulary in read_contract(str(folder)).vocabularies)
    return (CONTRACT_FILE, MODEL_FILE, WEIGHTS_FILE, *(path for path in vocabularies if path is not None))


def servable_digest(folder: str | Path) -> str:
    """SHA-256, hexadecimal, of the files of a servable model and their names.

    Raises:
        ServableError: a file is missing.
        ContractError: the contract cannot be read.
    """
    digest = hashlib.sha256()
    for name in servable_files(folder):
        try:
            content = hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
        except FileNotFoundError as error:
            raise ServableError(f"{Path(folder) / name}: no such file; the model is damaged") from error
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def _load_model(folder: Path, contract: Contract) -> ClickModel:
    description = read_description(folder)
    try:
        weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True, mmap=True)
        return restore(description.name, contract, description.options, weights)
    except (FileNotFoundError, EOFError, pickle.UnpicklingError, RuntimeError) as error:
        raise ServableError(f"{folder / WEIGHTS_FILE}: not the weights of model {description.name!r}: {error}") from error


def _write(
    folder: Path, model: nn.Module, description: ModelDescription, contract: Contract, vocabularies: Mapping[str, bytes]
) -> None:
    (folder / VOCABULARIES).mkdir()
    paths = {name: f"{VOCABULARIES}/{_file_name(name)}.parquet" for name in vocabularies}
    for name, content in vocabularies.items():
        (folder / paths[name]).write_bytes(content)
    copies = tuple(v.model_copy(update={"path": paths[v.name]}) if v.name in vocabularies else v for v in contract.vocabularies)
    own = contract.model_copy(update={"vocabularies": copies, "days": ()})  # the folder holds no samples
    (folder / CONTRACT_FILE).write_text(own.to_json(), encoding="utf-8")
    torch.save({name: weight.detach().cpu() for name, weight in model.state_dict().items()}, folder / WEIGHTS_FILE)
    described = description.model_copy(update={"weights_sha256": file_sha256(folder / WEIGHTS_FILE)})
    (folder / MODEL_FILE).write_text(described.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _file_name(name: str) -> str:
    """A name that every file system and artifact store takes: the vocabulary's own where it is one, else what is left of it and a hash."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
        return name
    return f"{re.sub('[^A-Za-z0-9_-]', '_', name)[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _replace(target: Path, staging: Path) -> None:
    """Rename ``staging`` to ``target``. A folder cannot be renamed over a full one, so what is there is moved aside first."""
    if target.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        target.rename(aside / target.name)
        staging.rename(target)
        shutil.rmtree(aside)
    else:
        staging.rename(target)
