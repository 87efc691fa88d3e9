"""Reading what a contract names: statistics, vocabularies, and the keys of users and candidates in the samples."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mian.contract import Contract, Day, SampleFile, Vocabulary, vocabulary_from_parquet
from mian.contract.document import USER_COLUMN
from pipeline.encoding.statistics import Counts

#: Files that are read at the same time: a store far away answers slowly, but many at once.
THREADS = 8
#: Keys that wait before they are merged into the distinct ones, at least; merging few at a time would sort the rest again and again.
WAITING = 4_000_000

IntArray = npt.NDArray[np.int64]
Result = TypeVar("Result")


class DescribeError(ValueError):
    """A file of the data set is missing or damaged, there is nothing to describe, or the page cannot be written."""


class Folder:
    """The folder of a data set.

    Args:
        samples: a local path or any URL that fsspec opens.

    Raises:
        DescribeError: a URL that cannot be opened here.
    """

    def __init__(self, samples: str) -> None:
        try:
            self._files, root = fsspec.core.url_to_fs(samples)
        except (OSError, ValueError, ImportError) as error:
            raise DescribeError(f"{samples}: cannot be opened ({error}); correct the path of the samples") from error
        self._root = root.rstrip("/")

    def path(self, file: SampleFile | Vocabulary) -> str:
        """The whole path of a file that the contract names."""
        return f"{self._root}/{file.path}"

    def read(self, file: SampleFile | Vocabulary) -> bytes:
        """A small file, checked.

        Raises:
            DescribeError: it is missing, or has another checksum than the contract says.
        """
        content: bytes = self._opened(file, lambda: self._files.cat_file(self.path(file)))
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise DescribeError(f"{self.path(file)}: does not have the checksum that the contract says; build the samples again")
        return content

    def columns(self, file: SampleFile, names: Sequence[str]) -> pa.Table:
        """Some columns of a file of samples.

        Raises:
            DescribeError: it is missing, is no Parquet file, or lacks a column or rows.
        """

        def load() -> pa.Table:
            with self._files.open(self.path(file), "rb") as handle:
                return pq.ParquetFile(handle).read(columns=list(names))

        table = self._opened(file, load)
        lacking = [name for name in names if name not in table.column_names]
        if lacking or table.num_rows != file.rows:
            what = f"has no column {lacking[0]}" if lacking else f"has {table.num_rows} rows, the contract says {file.rows}"
            raise DescribeError(f"{self.path(file)}: {what}; build the samples again")
        return table

    def _opened(self, file: SampleFile | Vocabulary, load: Callable[[], Result]) -> Result:
        try:
            return load()
        except FileNotFoundError as error:
            raise DescribeError(
                f"{self.path(file)}: no such file, though the contract names it; copy the whole folder, or build the samples again"
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise DescribeError(f"{self.path(file)}: cannot be read: {' '.join(str(error).split())}") from error


def read_statistics(folder: Folder, days: Iterable[Day]) -> list[Counts | None]:
    """The counts of each day; None where it has none: an empty day, or a build before there were any.

    Raises:
        DescribeError: a file is missing or damaged.
    """

    def load(day: Day) -> Counts | None:
        return json.loads(folder.read(day.statistics)) if day.statistics is not None else None

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(load, days))


def read_values(folder: Folder, vocabulary: Vocabulary, most: int) -> list[str]:
    """The first values of a vocabulary that is a table, the first of id 2.

    Raises:
        DescribeError: the file is missing or damaged.
    """
    table = vocabulary_from_parquet(io.BytesIO(folder.read(vocabulary)))
    values: list[str] = table.column("value").slice(0, most).to_pylist()
    return values


@dataclass
class Keys:
    """Who and what is in some samples.

    ``users``: distinct user keys, rising. ``candidates``: by candidate column, which ids occur; shape ``(size of its vocabulary,)``.
    """

    users: IntArray
    candidates: dict[str, npt.NDArray[np.bool_]]


def read_keys(folder: Folder, contract: Contract, files: Sequence[SampleFile]) -> Keys:
    """Count who and what is in files of samples, a few files at a time.

    Raises:
        DescribeError: a file is missing or damaged.
    """
    sizes = {
        field.column: contract.vocabulary(field.vocabulary).size
        for field in contract.group("candidate")
        if field.vocabulary is not None
    }

    def load(file: SampleFile) -> tuple[IntArray, dict[str, IntArray]]:
        table = folder.columns(file, [USER_COLUMN, *sizes])
        found = {name: np.unique(table.column(name).to_numpy()).astype(np.int64) for name in sizes}
        for name, ids in found.items():
            if len(ids) and not 0 <= ids[0] <= ids[-1] < sizes[name]:
                raise DescribeError(
                    f"{folder.path(file)}: {name} has an id outside 0 to {sizes[name] - 1}, the vocabulary's; build the samples again"
                )
        return np.unique(table.column(USER_COLUMN).to_numpy()), found

    users = _Distinct()
    candidates = {name: np.zeros(size, np.bool_) for name, size in sizes.items()}
    for keys, found in _in_threads(load, files):
        users.add(keys)
        for name, ids in found.items():
            candidates[name][ids] = True
    return Keys(users.all(), candidates)


def _in_threads(load: Callable[[SampleFile], Result], files: Sequence[SampleFile]) -> Iterator[Result]:
    """Results in order; never more of them in memory than a few a thread."""
    step = 4 * THREADS
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), step):
            yield from pool.map(load, files[start : start + step])


@dataclass
class _Distinct:
    """Distinct numbers of many arrays."""

    _known: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    _waiting: list[Any] = field(default_factory=list)
    _number: int = 0

    def add(self, keys: IntArray) -> None:
        self._waiting.append(keys)
        self._number += len(keys)
        if self._number > max(WAITING, len(self._known)):
            self.all()

    def all(self) -> IntArray:
        self._known = np.unique(np.concatenate([self._known, *self._waiting]))
        self._waiting, self._number = [], 0
        return self._known
