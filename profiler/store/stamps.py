"""Arrival stamps on disk: the gaps between them, in whole microseconds.

A record has the arrival of each token-bearing read as an offset from the request's send, rounded to 1 µs: several times finer than the
client's own error (docs/client.md), and exact from there on, what is read back is what was written. On disk a request's list holds its first
offset and then the steps from one to the next. Steps of one engine differ in their low byte and little above, so their bytes split by
place (Parquet's BYTE_STREAM_SPLIT) and compressed take less room than offsets, which differ in all: docs/store-scale.md has the figures.

An offset stops growing at 2^31 - 1 µs (2147 s).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Integers = np.ndarray[tuple[int], np.dtype[np.int64]]

OFFSETS, GAPS = "arrival_offsets_us", "arrival_gaps_us"  # the column as records and views have it, and as the file does
RESOLUTION_US = 1
LARGEST_US = 2**31 - 1


def int_lists(lists: Sequence[Sequence[int]]) -> pa.ListArray:
    """list<int32> from one flat buffer: several times faster than from nested lists. Values stop growing at 2^31 - 1."""
    import numpy as np
    import pyarrow as pa

    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    values = np.fromiter(chain.from_iterable(lists), np.int64, int(lengths.sum()))
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.minimum(values, LARGEST_US).astype(np.int32)))


def to_gaps(offsets: pa.ListArray) -> pa.ListArray:
    """Each list's first offset, then the steps. Offsets are 0 to 2^31 - 1 and need not grow; NULL stays NULL."""
    import numpy as np

    ends, values = _flat(offsets)
    gaps = np.diff(values, prepend=0)
    first = ends[:-1][np.diff(ends) > 0]
    gaps[first] = values[first]
    return _lists(offsets, ends, gaps)


def to_offsets(gaps: pa.ListArray) -> pa.ListArray:
    """The inverse of to_gaps: the running sum within each list."""
    import numpy as np

    ends, values = _flat(gaps)
    sums = np.cumsum(values)
    before = np.concatenate(([0], sums))[ends[:-1]]
    return _lists(gaps, ends, sums - np.repeat(before, np.diff(ends)))


def _flat(lists: pa.ListArray) -> tuple[Integers, Integers]:
    """Where each list begins (and the last one ends) in the values of all, and these; a NULL is as long as an empty list."""
    import numpy as np

    lengths = lists.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    return ends, lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)


def _lists(like: pa.ListArray, ends: Integers, values: Integers) -> pa.ListArray:
    import numpy as np
    import pyarrow as pa

    mask = like.is_null() if like.null_count else None
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values.astype(np.int32)), mask=mask)
