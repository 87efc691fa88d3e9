"""Builds the samples of ``conf/data/demo.yaml`` with DuckDB on one machine: what the Spark job is compared to.

``python duckdb_samples.py --logs DIR --output DIR`` does the work of ``jobs/build_samples.py`` on logs of the simulated world and prints
one line of JSON. What makes it fast:

- What is as of a moment (a user's attributes, the history) is found once for each distinct pair of user and time, not for each of the
  impressions that a page shows at once.
- Histories are places in one global order of clicks. Clicks lie in overlapping blocks of 60, so that a history of 30 is always a slice of
  one short list, however many clicks a user has; nothing is quadratic.
- Logs are scanned again rather than kept: a scan is cheap, memory is not.
- Vocabularies of item attributes are counted over items, those of user attributes over snapshots, each weighted by its impressions.
- Days are finished side by side, one query a thread, each from the log's files to the samples' files without a table between.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import pathlib
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb

FIRST, LAST, LAST_TRAINING = dt.date(2026, 1, 1), dt.date(2026, 2, 14), dt.date(2026, 2, 7)
ONE_DAY = dt.timedelta(days=1)
HISTORY_LENGTH, HISTORY_DAYS = 30, 29
ATTRIBUTION_HOURS = 24
MIN_COUNT, FIRST_ID, UNKNOWN_ID = 2, 2, 1
ROWS_PER_FILE = 50_000
VECTOR = 2048
DAY_MICROSECONDS = 86_400_000_000

CONTEXT = ("position", "device", "city", "weather", "page")
MOMENT = ("hour", "weekday", "month")
#: Field, then the column of the snapshots, then the vocabulary.
USER = (
    ("gender", "gender", "gender"),
    ("age", "age_group", "age"),
    ("occupation", "occupation", "occupation"),
    ("membership", "membership", "membership"),
    ("home_city", "home_city", "city"),
    ("household", "household", "household"),
)


Result = TypeVar("Result")


class LogError(ValueError):
    """A log that cannot be used."""


@dataclass(frozen=True)
class Written:
    """What was written of a day: rows, positives, and each file's name and SHA-256."""

    rows: int
    positives: int
    files: tuple[tuple[str, str], ...]


class Build:
    """One build of all days.

    Args:
        logs: the folder with ``impressions``, ``clicks``, ``users`` and ``items``.
        output: the folder of the samples; what it held is removed.
        threads: how many cores to use.
        memory: DuckDB's limit, as in ``3GB``.
        verbose: say on stderr how long each step took.
    """

    def __init__(self, logs: pathlib.Path, output: pathlib.Path, threads: int, memory: str, verbose: bool) -> None:
        self._logs, self._output, self._threads, self._verbose = logs, output, threads, verbose
        self._scratch = output / "_scratch"
        shutil.rmtree(output, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._db = duckdb.connect(
            config={"threads": threads, "memory_limit": memory, "temp_directory": str(self._scratch / "spilled")},
        )
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute("SET preserve_insertion_order = false")
        # its estimate for a few files of a log is one row, which would make it join by nested loops
        self._db.execute("SET asof_loop_join_threshold = 0")

    def run(self) -> tuple[int, int]:
        """Do everything; the numbers of samples and of positives."""
        try:
            counts = self._timed("check", self._check)
            self._timed("duplicates", lambda: self._find_duplicates(counts))
            self._timed("tables", self._read_tables)
            self._timed("clicks", self._place_clicks)
            self._timed("moments", self._find_moments)
            self._timed("vocabularies", self._count)
            self._timed("codes", self._encode_tables)
            self._timed("blocks", self._cut_blocks)
            written = self._timed("samples", lambda: self._write_days(counts))
        finally:
            self._db.close()
            shutil.rmtree(self._scratch, ignore_errors=True)
        manifest = {
            str(day): {"rows": w.rows, "positives": w.positives, "files": [{"path": p, "sha256": s} for p, s in w.files]}
            for day, w in written.items()
        }
        (self._output / "files.json").write_text(json.dumps(manifest, indent=1))
        return sum(w.rows for w in written.values()), sum(w.positives for w in written.values())

    def _timed(self, name: str, step: Callable[[], Any]) -> Any:
        start, cpu = time.monotonic(), time.process_time()
        result = step()
        if self._verbose:
            print(
                f"{name:<14}{time.monotonic() - start:7.2f} s {time.process_time() - cpu:7.2f} s CPU {_peak_gib():6.2f} GiB",
                file=sys.stderr,
                flush=True,
            )
        return result

    def _log(self, name: str, first: dt.date, last: dt.date) -> str:
        """A table's rows of some days, as something to select from."""
        source = f"read_parquet('{self._logs / name}/*/*.parquet', hive_partitioning = true, hive_types = {{'day': DATE}})"
        return f"(FROM {source} WHERE day BETWEEN DATE '{first}' AND DATE '{last}')"

    def _check(self) -> dict[dt.date, int]:
        """Refuse logs that cannot be used; the number of impressions a day."""
        for name, first, last in (
            ("impressions", FIRST, LAST),
            ("clicks", FIRST - HISTORY_DAYS * ONE_DAY, LAST + 2 * ONE_DAY),
        ):
            facts = self._db.execute(f"""
                SELECT day, count(*), count(impression_id), count(user_id), count(item_id), count(event_time),
                       count(*) FILTER (event_time < day::TIMESTAMP OR event_time >= day::TIMESTAMP + INTERVAL 1 DAY)
                FROM {self._log(name, first, last)} GROUP BY day ORDER BY day""").fetchall()
            for day, rows, *known, elsewhere in facts:
                if min(known) < rows or elsewhere:
                    raise LogError(f"{name}: on {day} an id or a time is null, or a time is not of this day")
            counts = {row[0]: row[1] for row in facts}
            if name == "impressions":
                day_counts = counts
        missing = [str(FIRST + i * ONE_DAY) for i in range((LAST - FIRST).days + 1) if FIRST + i * ONE_DAY not in day_counts]
        if missing:
            raise LogError(f"impressions: no events on {', '.join(missing)}")
        return day_counts

    def _find_duplicates(self, counts: dict[dt.date, int]) -> None:
        """Tables ``doubtful`` (hashes of keys that come twice), ``kept`` and ``removed`` (the rows of such keys)."""
        columns = ", ".join(("impression_id", "user_id", "item_id", "event_time", *CONTEXT, "day"))
        order = ", ".join(f"{c} NULLS FIRST" for c in ("event_time", "item_id", *CONTEXT))
        self._db.execute("CREATE TABLE doubtful (day DATE, h UBIGINT)")
        self._db.execute(
            f"CREATE TABLE ranked AS SELECT {columns}, 0::BIGINT AS place FROM {self._log('impressions', FIRST, FIRST)} LIMIT 0"
        )

        def look_through(day: dt.date) -> None:
            rows = self._log("impressions", day, day)
            with self._db.cursor() as cursor:
                cursor.execute(f"""
                    CREATE TEMP TABLE twice AS
                    SELECT hash(impression_id, user_id, day) AS h FROM {rows} GROUP BY h HAVING count(*) > 1""")
                cursor.execute(f"INSERT INTO doubtful SELECT DATE '{day}', h FROM twice")
                cursor.execute(f"""
                    INSERT INTO ranked SELECT {columns}, row_number() OVER (PARTITION BY user_id, impression_id ORDER BY {order})
                    FROM {rows} WHERE hash(impression_id, user_id, day) IN (FROM twice)""")

        self._each_day(look_through, counts)
        self._db.execute("CREATE TABLE kept AS SELECT * EXCLUDE (place) FROM ranked WHERE place = 1")
        self._db.execute("CREATE TABLE removed AS SELECT * EXCLUDE (place) FROM ranked WHERE place > 1")
        self._db.execute("DROP TABLE ranked")

    def _weighted(self, first: dt.date, last: dt.date) -> str:
        """All rows of the impressions with ``weight`` 1, and the removed ones again with -1: sums leave duplicates out."""
        columns = f"user_id, item_id, event_time, {', '.join(CONTEXT)}"
        return f"""(SELECT {columns}, 1 AS weight FROM {self._log("impressions", first, last)} UNION ALL
                    SELECT {columns}, -1 FROM removed WHERE day BETWEEN DATE '{first}' AND DATE '{last}')"""

    def _read_tables(self) -> None:
        """Tables ``items`` (one row an item) and ``snapshots`` (one row a user and moment); of several the greatest counts."""
        best = ", ".join(f"{c} DESC NULLS LAST" for c in ("category", "brand", "price"))
        self._db.execute(f"""
            CREATE TABLE items AS
            SELECT DISTINCT ON (item_id) item_id, category, brand, price::DOUBLE AS price,
                   sign(price) * ln(1 + abs(price)) AS value
            FROM read_parquet('{self._logs / "items"}/*.parquet') WHERE item_id IS NOT NULL ORDER BY item_id, {best}""")
        columns = ", ".join(c for _, c, _ in USER)
        source = f"read_parquet('{self._logs / 'users'}/*/*.parquet', hive_partitioning = true, hive_types = {{'day': DATE}})"
        rows = f"SELECT user_id, day, {columns} FROM {source} WHERE user_id IS NOT NULL"
        several = self._db.execute(f"SELECT count(*) > count(DISTINCT hash(user_id, day)) FROM ({rows})").fetchone()
        if several is not None and several[0]:
            best = ", ".join(f"{c} DESC NULLS LAST" for _, c, _ in USER)
            rows = f"SELECT DISTINCT ON (user_id, day) * FROM ({rows}) ORDER BY user_id, day, {best}"
        self._db.execute(f"""
            CREATE TABLE snapshots AS
            SELECT user_id, epoch_us(day::TIMESTAMP) AS valid_from, {columns}, row_number() OVER ()::INTEGER AS snapshot
            FROM ({rows})""")

    def _place_clicks(self) -> None:
        """Tables ``clicks`` (each once, ``place`` in one order of all), ``moments_of_clicks`` and ``label_clicks``."""
        self._db.execute(f"""
            CREATE TABLE label_clicks AS
            SELECT DISTINCT impression_id, user_id, item_id, epoch_us(event_time) AS time
            FROM {self._log("clicks", FIRST - HISTORY_DAYS * ONE_DAY, LAST + 2 * ONE_DAY)}""")
        self._db.execute(f"""
            CREATE TABLE clicks AS
            SELECT user_id, time, item_id, row_number() OVER (ORDER BY user_id, time, item_id, impression_id)::INTEGER AS place
            FROM label_clicks WHERE time < {_micros(LAST + ONE_DAY)}""")
        # a moment's last click, and where its user's clicks begin
        self._db.execute("""
            CREATE TABLE moments_of_clicks AS
            SELECT user_id, time, last, first
            FROM (SELECT user_id, time, max(place) AS last FROM clicks GROUP BY user_id, time)
            JOIN (SELECT user_id, min(place) AS first FROM clicks GROUP BY user_id) USING (user_id)""")

    def _find_moments(self) -> None:
        """Table ``moments``: for each user and time of impressions, how many there are, the snapshot and the history."""
        reach = HISTORY_DAYS * DAY_MICROSECONDS
        self._db.execute(f"""
            CREATE TABLE moments AS
            WITH moments AS (
                SELECT user_id, epoch_us(event_time) AS time, sum(weight)::BIGINT AS impressions
                FROM {self._weighted(FIRST, LAST)} GROUP BY user_id, time HAVING impressions > 0)
            SELECT m.user_id, m.time, m.impressions, s.snapshot, h.last,
                   CASE WHEN h.last IS NULL THEN 0 ELSE least({HISTORY_LENGTH}, h.last - coalesce(o.last, h.first - 1)) END AS length
            FROM moments m
            ASOF LEFT JOIN snapshots s ON s.user_id = m.user_id AND s.valid_from < m.time
            ASOF LEFT JOIN moments_of_clicks h ON h.user_id = m.user_id AND h.time < m.time
            ASOF LEFT JOIN moments_of_clicks o ON o.user_id = m.user_id AND o.time < m.time - {reach}""")
        self._db.execute("DROP TABLE moments_of_clicks")

    def _count(self) -> None:
        """Table ``vocabulary``: ``name``, ``value``, ``count`` and ``id``; and a file of each."""
        end = _micros(LAST_TRAINING + ONE_DAY)
        per_field = " UNION ALL ".join(
            f"SELECT '{vocabulary}' AS name, {column} AS value, sum(impressions) AS count FROM users GROUP BY {column}"
            for _, column, vocabulary in USER
        )
        per_moment = " UNION ALL ".join(
            f"SELECT '{field}', {field}::VARCHAR, sum(impressions) FROM times GROUP BY {field}" for field in MOMENT
        )
        context = ", ".join(f"{c}::VARCHAR AS {c}" for c in CONTEXT)
        sets = ("item_id", *CONTEXT)
        self._db.execute(f"""
            CREATE TEMP TABLE column_counts AS
            SELECT CASE {" ".join(f"WHEN grouping({c}) = 0 THEN '{c}'" for c in sets)} END AS name,
                   coalesce({", ".join(sets)}) AS value, sum(weight) AS count
            FROM (SELECT item_id, {context}, weight FROM {self._weighted(FIRST, LAST_TRAINING)})
            GROUP BY GROUPING SETS ({", ".join(f"({c})" for c in sets)})""")
        self._db.execute(f"""
            CREATE TABLE vocabulary AS
            WITH training AS (SELECT * FROM moments WHERE time < {end}),
            users AS (SELECT snapshots.*, n.impressions
                      FROM (SELECT snapshot, sum(impressions) AS impressions FROM training GROUP BY snapshot) n
                      JOIN snapshots USING (snapshot)),
            times AS (SELECT {_moment_fields("hours * 3600000000")}, impressions
                      FROM (SELECT time // 3600000000 AS hours, sum(impressions) AS impressions FROM training GROUP BY hours)),
            seen AS (SELECT value AS item_id, count FROM column_counts WHERE name = 'item_id' UNION ALL
                     SELECT item_id, count(*) FROM clicks WHERE time < {end} GROUP BY item_id),
            counted AS (
                SELECT name, value, count FROM column_counts WHERE name <> 'item_id' UNION ALL
                {per_field} UNION ALL
                {per_moment} UNION ALL
                SELECT 'item_id', item_id, count FROM seen UNION ALL
                SELECT 'category', category, count FROM seen JOIN items USING (item_id) UNION ALL
                SELECT 'brand', brand, count FROM seen JOIN items USING (item_id))
            SELECT name, value, count,
                   (row_number() OVER (PARTITION BY name ORDER BY count DESC, value) + {FIRST_ID - 1})::INTEGER AS id
            FROM (SELECT name, value, sum(count)::BIGINT AS count FROM counted WHERE value IS NOT NULL GROUP BY name, value)
            WHERE count >= {MIN_COUNT}""")
        folder = self._output / "vocabularies"
        folder.mkdir()
        for (name,) in self._db.execute("SELECT DISTINCT name FROM vocabulary ORDER BY name").fetchall():
            self._db.execute(f"""
                COPY (SELECT value, count FROM vocabulary WHERE name = '{name}' ORDER BY id)
                TO '{folder / name}.parquet' (FORMAT parquet, COMPRESSION zstd)""")

    def _encode_tables(self) -> None:
        """Tables ``item_codes`` and ``moment_codes``: what items and moments are in samples."""
        facts = self._db.execute("""
            WITH priced AS (SELECT i.value AS x, c.count AS n FROM column_counts c JOIN items i ON i.item_id = c.value
                            WHERE c.name = 'item_id' AND i.value IS NOT NULL AND NOT isnan(i.value)),
            center AS (SELECT sum(x * n) / sum(n) AS mean FROM priced)
            SELECT any_value(mean), sqrt(sum(n * (x - mean) ** 2) / sum(n)) FROM priced, center""").fetchone()
        assert facts is not None
        mean = float(f"{facts[0] or 0.0:.6g}")
        std = float(f"{facts[1] or 1.0:.6g}")
        scaled = f"(i.value - {mean!r}) / {std!r}"
        self._db.execute(f"""
            CREATE TABLE item_codes AS
            WITH ids AS (SELECT value AS item_id, id FROM vocabulary WHERE name = 'item_id')
            SELECT item_id, coalesce(ids.id, {UNKNOWN_ID}) AS item, coalesce(c.id, {UNKNOWN_ID}) AS category,
                   coalesce(b.id, {UNKNOWN_ID}) AS brand,
                   CASE WHEN isfinite({scaled}) THEN ({scaled})::FLOAT ELSE 0::FLOAT END AS price
            FROM items i FULL JOIN ids USING (item_id)
            LEFT JOIN vocabulary c ON c.name = 'category' AND c.value = i.category
            LEFT JOIN vocabulary b ON b.name = 'brand' AND b.value = i.brand""")
        ids = ", ".join(f"coalesce({f}.id, {UNKNOWN_ID}) AS {f}" for f, _, _ in USER)
        joins = " ".join(f"LEFT JOIN vocabulary {f} ON {f}.name = '{v}' AND {f}.value = s.{c}" for f, c, v in USER)
        self._db.execute(f"CREATE TEMP TABLE snapshot_codes AS SELECT snapshot, {ids} FROM snapshots s {joins}")
        coded = ", ".join(f"coalesce(s.{f}, {UNKNOWN_ID}) AS {f}" for f, _, _ in USER)
        times = ", ".join(f"coalesce({f}.id, {UNKNOWN_ID}) AS {f}" for f in MOMENT)
        joins = " ".join(f"LEFT JOIN vocabulary {f} ON {f}.name = '{f}' AND {f}.value = t.{f}" for f in MOMENT)
        block = f"(m.last - 1) // {HISTORY_LENGTH}"
        self._db.execute(f"""
            CREATE TABLE moment_codes AS
            WITH hours AS (SELECT t.hours, {times}
                           FROM (SELECT hours, {_moment_fields("hours * 3600000000", "::VARCHAR")}
                                 FROM (SELECT DISTINCT time // 3600000000 AS hours FROM moments)) t
                           {joins})
            SELECT m.user_id, m.time, (hash(m.user_id)::HUGEINT - {2**63})::BIGINT AS user_key, {coded},
                   {", ".join(f"h.{f}" for f in MOMENT)}, m.length,
                   CASE WHEN m.length > 0 THEN {block} END AS block,
                   least(({block} + 1) * {HISTORY_LENGTH}, (SELECT max(place) FROM clicks)) - m.last + 1 AS start
            FROM moments m JOIN hours h ON h.hours = m.time // 3600000000 LEFT JOIN snapshot_codes s USING (snapshot)""")
        for name in CONTEXT:  # tables of their own, for what the optimizer knows of their sizes
            self._db.execute(f"CREATE TABLE {name}_ids AS SELECT value, id FROM vocabulary WHERE name = '{name}'")
        for table in ("moments", "snapshot_codes", "snapshots", "column_counts"):
            self._db.execute(f"DROP TABLE {table}")

    def _cut_blocks(self) -> None:
        """Table ``blocks``: of each 30 places the clicks there and at the 30 before, encoded, the last first."""
        self._db.execute(f"""
            CREATE TABLE blocks AS
            WITH coded AS (SELECT c.place, coalesce(i.item, {UNKNOWN_ID}) AS item, coalesce(i.category, {UNKNOWN_ID}) AS category,
                                  coalesce(i.brand, {UNKNOWN_ID}) AS brand, c.time
                           FROM clicks c LEFT JOIN item_codes i USING (item_id)),
            twice AS (SELECT *, (place - 1) // {HISTORY_LENGTH} AS block FROM coded UNION ALL
                      SELECT *, (place - 1) // {HISTORY_LENGTH} + 1 FROM coded)
            SELECT block, list(item ORDER BY place DESC) AS item, list(category ORDER BY place DESC) AS category,
                   list(brand ORDER BY place DESC) AS brand, list(time ORDER BY place DESC) AS time
            FROM twice GROUP BY block""")
        self._db.execute("DROP TABLE clicks")

    def _write_days(self, counts: dict[dt.date, int]) -> dict[dt.date, Written]:
        """Write the samples, as many days at a time as there are threads, each day on one of them."""
        # joins as they are written: the impressions stream past small tables (by its estimates DuckDB would hash the impressions)
        self._db.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        return self._each_day(lambda day: self._write_day(day, counts[day]), counts)

    def _each_day(self, work: Callable[[dt.date], Result], counts: dict[dt.date, int]) -> dict[dt.date, Result]:
        """Work on as many days at a time as there are threads, each day on one of them."""
        self._db.execute("SET threads = 1")  # those of DuckDB's own: the threads that run the queries come to it
        with ThreadPoolExecutor(self._threads) as pool:
            # a day that is large comes first, so that none is left over to the end
            futures = {day: pool.submit(work, day) for day in sorted(counts, key=lambda d: -counts[d])}
            results = {day: futures[day].result() for day in counts}
        self._db.execute(f"SET threads = {self._threads}")
        return results

    def _write_day(self, day: dt.date, rows: int) -> Written:
        """Write the samples of a day."""
        begin, end = _micros(day), _micros(day + ONE_DAY)
        columns = ", ".join(["impression_id", "user_id", "item_id", "event_time", *CONTEXT])
        context = ", ".join(f"coalesce({c}.id, {UNKNOWN_ID}) AS context_{c}" for c in CONTEXT)
        joins = " ".join(f"LEFT JOIN {c}_ids {c} ON {c}.value = i.{c}::VARCHAR" for c in CONTEXT)

        def behaviors(column: str) -> str:
            return f"coalesce(b.{column}[m.start : m.start + m.length - 1], []::BIGINT[])"

        columns_of_behaviors = {f: behaviors(c) for c, f in (("item", "item_id"), ("category", "category"), ("brand", "brand"))}
        seconds = "((m.time - t) / 1e6)"
        columns_of_behaviors["gap"] = (
            f"list_transform({behaviors('time')}, lambda t: {FIRST_ID} + greatest(floor(log2({seconds})) + 1, 0))"
        )
        lists = ", ".join(
            f"list_resize(({column})::INTEGER[], {HISTORY_LENGTH}, 0) AS behavior_{f}"
            for f, column in columns_of_behaviors.items()
        )
        query = f"""
            WITH impressions AS (
                SELECT *, epoch_us(event_time) AS time
                FROM (SELECT {columns} FROM {self._log("impressions", day, day)}
                      WHERE hash(impression_id, user_id, day) NOT IN (SELECT h FROM doubtful WHERE day = DATE '{day}') UNION ALL
                      SELECT {columns} FROM kept WHERE day = DATE '{day}')),
            known AS MATERIALIZED (
                SELECT m.* EXCLUDE (block, start), {lists}
                FROM (FROM moment_codes WHERE time >= {begin} AND time < {end}) m LEFT JOIN blocks b USING (block)),
            clicked AS (
                SELECT impression_id, user_id, list(time) AS times FROM label_clicks
                WHERE time >= {begin} AND time < {end} + {ATTRIBUTION_HOURS * 3_600_000_000} GROUP BY impression_id, user_id)
            SELECT i.impression_id, i.time,
                   coalesce(len(list_filter(c.times, lambda t: t >= i.time AND t < i.time + {ATTRIBUTION_HOURS * 3_600_000_000})) > 0,
                            false)::INTEGER AS label,
                   k.user_key, coalesce(o.item, {UNKNOWN_ID}) AS candidate_item_id,
                   coalesce(o.category, {UNKNOWN_ID}) AS candidate_category, coalesce(o.brand, {UNKNOWN_ID}) AS candidate_brand,
                   coalesce(o.price, 0::FLOAT) AS candidate_price,
                   k.behavior_item_id, k.behavior_category, k.behavior_brand, k.behavior_gap,
                   {", ".join(f"k.{f} AS user_{f}" for f, _, _ in USER)},
                   {context}, {", ".join(f"k.{f} AS context_{f}" for f in MOMENT)}, k.length AS behavior_length
            FROM impressions i JOIN known k ON k.user_id = i.user_id AND k.time = i.time
            LEFT JOIN item_codes o ON o.item_id = i.item_id
            LEFT JOIN clicked c ON c.impression_id = i.impression_id AND c.user_id = i.user_id
            {joins} ORDER BY hash(i.impression_id, 1), i.impression_id"""
        folder = self._output / f"day={day}"
        files = -(-rows // ROWS_PER_FILE)
        each = -(-rows // (files * VECTOR)) * VECTOR
        with self._db.cursor() as cursor:
            cursor.execute(f"""
                COPY ({query}) TO '{folder}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {each}, ROW_GROUPS_PER_FILE 1,
                                              FILENAME_PATTERN 'part-{{i}}', PER_THREAD_OUTPUT false)""")
            paths = sorted(folder.glob("*.parquet"))
            facts = cursor.execute(f"SELECT count(*), sum(label) FROM read_parquet('{folder}/*.parquet')").fetchone()
        assert facts is not None
        sums = tuple((f"{folder.name}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)
        return Written(facts[0], int(facts[1] or 0), sums)


def _moment_fields(micros: str, cast: str = "") -> str:
    """Hour, weekday (0 is Monday) and month of microseconds since 1970-01-01 UTC, which was a Thursday."""
    return f"""(({micros}) // 3600000000 % 24){cast} AS hour, ((({micros}) // {DAY_MICROSECONDS} + 3) % 7){cast} AS weekday,
               month(make_timestamp({micros})){cast} AS month"""


def _micros(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY_MICROSECONDS


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, build, print what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", default="3GB")
    parser.add_argument("--verbose", action="store_true", help="say on stderr how long each step took")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    rows, positives = Build(options.logs, options.output, options.threads, options.memory, options.verbose).run()
    seconds = time.monotonic() - start
    print(json.dumps({"seconds": round(seconds, 2), "peak_gib": round(_peak_gib(), 3), "rows": rows, "positives": positives}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
