"""From raw values to what the model reads; the same code in the Spark workers and in the served model."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Iterable, Mapping
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mian.contract.canonical import canonical_text
from mian.contract.document import Field, NumericTransform, Vocabulary

Number = TypeVar("Number", bound=np.generic)

PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_ID = 2
#: A transformed number beyond this, either way, becomes this: an infinity, 1e200, or an unforeseen unit. No number of fewer than 10^12
#: training rows lies so many standard deviations from their mean, and a model can still calculate with it in float32.
LARGEST_NUMBER = 1e6
#: Numbers whose transform is finite in float32 are what means, deviations and bucket edges are fitted on.
LARGEST_FITTED = float(np.finfo(np.float32).max)
_TEXTS = 1 << 14  # of a vocabulary, that are hashed or read at a time
_PLACES = np.frombuffer(secrets.token_bytes(8 * 1024), np.uint64)
#: Text columns of few different values as they come from the join.
DICTIONARY = pa.dictionary(pa.int32(), pa.string())


class Encoder:
    """Encodes columns of raw values.

    Args:
        vocabularies: how values become ids.
        tables: for each vocabulary that is a table its values in the order of their ids: the first is id 2.
    """

    def __init__(self, vocabularies: Iterable[Vocabulary], tables: Mapping[str, pa.Array | pa.ChunkedArray]) -> None:
        self._vocabularies = {vocabulary.name: vocabulary for vocabulary in vocabularies}
        self._tables = {
            name: _Table(tables[name]) for name, vocabulary in self._vocabularies.items() if vocabulary.kind == "table"
        }

    def encode(self, field: Field, values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32] | npt.NDArray[np.float32]:
        """Encode a column of single values (flatten a list column first).

        Args:
            field: which field the column is of.
            values: raw values, shape ``(N,)``: anything that has a text, see :func:`mian.contract.canonical.canonical_text`, or casts
                to a number; nulls are allowed.

        Returns:
            Shape ``(N,)``: int32 ids, or float32 numbers.

        Raises:
            pyarrow.ArrowInvalid: a numeric field holds text that is no number.
        """
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if field.vocabulary is None:
            assert field.transform is not None
            return apply_transform(field.transform, values)
        vocabulary = self._vocabularies[field.vocabulary]
        if vocabulary.kind == "buckets":
            return bucket_ids(vocabulary.edges or (), values)
        encoded = values if values.type == DICTIONARY else canonical_text(values).dictionary_encode()
        ids = np.append(self._distinct_ids(vocabulary, encoded.dictionary), np.int32(UNKNOWN_ID))  # nulls point to the last
        indices: npt.NDArray[np.int32] = encoded.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)
        return ids.take(indices)

    def _distinct_ids(self, vocabulary: Vocabulary, values: pa.Array) -> npt.NDArray[np.int32]:
        if vocabulary.kind == "table":
            return self._tables[vocabulary.name].ids(values)
        return np.fromiter(map(hash_id, values.to_pylist(), itertools.repeat(vocabulary.size)), np.int32, len(values))


class _Table:
    """The ids of a vocabulary's values, in 12 bytes a value beside the text: a dictionary would take 200."""

    def __init__(self, values: pa.Array | pa.ChunkedArray) -> None:
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        self._values = values.cast(pa.string())
        hashes = _hashes(self._values)
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]

    def __reduce__(self) -> tuple[type[_Table], tuple[pa.Array]]:
        return _Table, (self._values,)  # hashes of text are others in each process

    def ids(self, values: pa.Array) -> npt.NDArray[np.int32]:
        """Ids of distinct values, strings without nulls, shape ``(N,)``; :data:`UNKNOWN_ID` where there is none."""
        values = values.cast(pa.string())
        wanted = _hashes(values)
        found = np.full(len(values), UNKNOWN_ID, np.int32)
        rows = np.arange(len(values))
        places = np.searchsorted(self._hashes, wanted)
        while True:  # once but where values share a hash
            inside = places < len(self._hashes)
            rows, places = rows[inside], places[inside]
            alike = self._hashes[places] == wanted[rows]
            rows, places = rows[alike], places[alike]
            if not len(rows):
                return found
            candidates = self._order[places]
            equal = pc.equal(self._values.take(pa.array(candidates)), values.take(pa.array(rows))).to_numpy(zero_copy_only=False)
            found[rows[equal]] = candidates[equal] + FIRST_ID
            rows, places = rows[~equal], places[~equal] + 1


def _hashes(values: pa.Array) -> npt.NDArray[np.uint64]:
    """Hashes of text without nulls, ``(N,)``; others in each process.

    The sum of (byte + 1) times a random number of the byte's place, modulo 2^64: of two texts, whichever they are, it is the same with a
    probability below 2^-55. NumPy computes it without Python's lock, so that threads that serve meanwhile are not held up; in pieces,
    for it takes 40 bytes a byte of text.
    """
    hashes = np.empty(len(values), np.uint64)
    for start in range(0, len(values), _TEXTS):
        hashes[start : start + _TEXTS] = _hashes_of_piece(values.slice(start, _TEXTS))
    return hashes


def _hashes_of_piece(values: pa.Array) -> npt.NDArray[np.uint64]:
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    starts, total = ends[:-1] - ends[0], int(ends[-1] - ends[0])
    if not total:
        return np.zeros(len(values), np.uint64)
    places = np.arange(total) - np.repeat(starts, np.diff(ends))
    terms = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].astype(np.uint64)
    terms += np.uint64(1)
    terms *= _PLACES.take(places, mode="wrap")
    sums = np.zeros(total + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])
    hashes: npt.NDArray[np.uint64] = sums[ends[1:] - ends[0]] - sums[starts]
    return hashes


def hash_id(value: str, size: int) -> int:
    """The id of a value in a hashed vocabulary of so many ids, padding and unknown included."""
    digest = hashlib.blake2b(value.encode(), digest_size=8).digest()
    return FIRST_ID + int.from_bytes(digest, "little") % (size - FIRST_ID)


def bucket_ids(edges: Iterable[float], values: pa.Array) -> npt.NDArray[np.int32]:
    """Ids of numbers, shape ``(N,)``: 2 plus how many edges are not greater; nulls and NaN are unknown."""
    return number_ids(np.asarray(list(edges), np.float64), _doubles(values))


def number_ids(edges: npt.NDArray[np.float64], raw: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """The same as :func:`bucket_ids`, of numbers ``(N,)`` and edges ``(E,)``; NaN is unknown."""
    return np.where(np.isnan(raw), UNKNOWN_ID, FIRST_ID + np.searchsorted(edges, raw, "right")).astype(np.int32)


def _doubles(values: pa.Array) -> npt.NDArray[np.float64]:
    raw: npt.NDArray[np.float64] = pc.fill_null(values.cast(pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
    return raw


def transformed(kind: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A numeric field's ``f(x)`` before it is standardized; see :class:`NumericTransform`."""
    return np.sign(values) * np.log1p(np.abs(values)) if kind == "log" else values


def apply_transform(transform: NumericTransform, values: pa.Array) -> npt.NDArray[np.float32]:
    """Transform a numeric column of shape ``(N,)`` to float32.

    Nulls and NaN become 0, the training mean. What lies beyond :data:`LARGEST_NUMBER`, infinities included, becomes that number.
    """
    return transform_numbers(transform, _doubles(values))


def transform_numbers(transform: NumericTransform, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The same as :func:`apply_transform`, of numbers ``(N,)``; NaN becomes 0."""
    with np.errstate(over="ignore"):  # a number beyond float64 is cut like any other
        scaled = (transformed(transform.kind, raw) - transform.mean) / transform.std
    return np.where(np.isnan(scaled), 0.0, np.clip(scaled, -LARGEST_NUMBER, LARGEST_NUMBER)).astype(np.float32)


def missing_numbers(values: pa.Array) -> int:
    """How many numbers of a column are missing: null or NaN."""
    return int(pc.sum(pc.is_null(values, nan_is_null=True)).as_py() or 0)


def fitted_on(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Those of some numbers that a transform or the edges of buckets are fitted on: no NaN, nothing beyond float32."""
    return values[np.abs(values) <= LARGEST_FITTED]


def padding(lengths: npt.NDArray[np.int32], length: int, order: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Where the entries of padded rows are among those of lists laid end to end; see :func:`padded`.

    Args:
        lengths: of the lists, shape ``(N,)``; none greater than ``length``.
        length: T.
        order: which list each row is, shape ``(N,)``; as they come if not given.

    Returns:
        Shape ``(N, T)``; behind a list's end the number of all entries.
    """
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    if order is not None:
        starts, lengths = starts[order], lengths[order]
    steps = np.arange(length)
    return np.where(steps < lengths[:, np.newaxis], starts[:, np.newaxis] + steps, lengths.sum(dtype=np.int64))


def padded(values: npt.NDArray[Number], places: npt.NDArray[np.int64]) -> npt.NDArray[Number]:
    """Lists laid end to end as rows of one length, 0 behind each.

    Args:
        values: the entries of all lists, shape ``(sum of lengths,)``.
        places: of :func:`padding`, shape ``(N, T)``.

    Returns:
        Shape ``(N, T)``.
    """
    rows: npt.NDArray[Number] = np.append(values, values.dtype.type(0)).take(places)
    return rows


def vocabulary_to_parquet(values: pa.Array, counts: pa.Array, file: BinaryIO) -> None:
    """Write a vocabulary, values in the order of their ids."""
    table = pa.table({"value": values.cast(pa.string()), "count": counts.cast(pa.int64())})
    pq.write_table(table, file, compression="zstd")


def vocabulary_from_parquet(file: BinaryIO) -> pa.Table:
    """Read a vocabulary: columns ``value`` (string) and ``count`` (int64), in the order of their ids."""
    return pq.read_table(file, columns=["value", "count"]).combine_chunks()


def vocabulary_values(file: BinaryIO) -> pa.Array:
    """The values of a vocabulary alone, strings in the order of their ids; read in pieces, which takes half the memory."""
    batches = pq.ParquetFile(file).iter_batches(batch_size=_TEXTS, columns=["value"], use_threads=False)
    return pa.chunked_array([batch.column(0) for batch in batches], pa.string()).combine_chunks()
