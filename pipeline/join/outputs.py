"""What the join gives, a row of Spark for each piece: its kinds, and the columns that samples have beside those of the contract."""

from __future__ import annotations

from pipeline.join.rows import ORDER_HASH

#: What the join gives: samples of a file; rows left out; how many rows found their partner; counts of values; sums of numbers; some
#: impressions of the training days.
SAMPLES, REJECTED, MATCHES, COUNTS, MOMENTS, SAMPLE = "samples", "rejected", "matches", "counts", "moments", "sample"
#: The number of the file of rejected rows and of counts of matches: it is none of the samples'.
NO_FILE = -1
#: The reason that negatives are left out with that are none: see :func:`pipeline.logs.negatives.draw_negatives`.
UNDRAWN = "log.negatives: no item could be drawn"
DUPLICATE = "log.impressions: a duplicate of another impression"
OUTPUT = "kind string, day date, file int, payload binary"

#: Columns of packed samples beside those of the contract.
SEEN_COLUMN = "_seen"  # bool: the candidate item is among the behaviors
HASH_COLUMN = ORDER_HASH
#: Text, of candidates to score alone: the ids of the user and the item.
USER_ID_COLUMN, ITEM_ID_COLUMN = "_user_id", "_item_id"

Output = tuple[str, int | None, int | None, bytes]
