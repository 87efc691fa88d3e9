from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipeline.importers import ImporterError, import_logs
from tests.support.generated import SETS

Damage = Callable[[Path], object]


def add(name: str, *lines: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        content = "".join(line + "\n" for line in lines).encode()
        if path.suffix == ".gz":
            content = gzip.compress(content)  # a second member: gzip reads them as one
        path.write_bytes(path.read_bytes() + content)

    return damage


def change(name: str, old: str, new: str) -> Damage:
    return lambda folder: (folder / name).write_text((folder / name).read_text("iso-8859-1").replace(old, new), "iso-8859-1")


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


BAD: list[tuple[str, Damage, list[str]]] = [
    ("movielens-100k", lambda folder: (folder / "u.user").unlink(), ["no file u.user", "grouplens.org/datasets/movielens/100k"]),
    ("movielens-100k", add("u.data", "9\t1\t5", "9\t2\tfive\t881250949"), ["u.data: 2 of the 8 lines", "'\\t'", "'9\\t1\\t5'"]),
    ("movielens-100k", add("u.data", "\t1\t5\t881250949"), ["u.data: user_id is empty in 1 of the 7 rows"]),
    ("movielens-100k", lambda folder: (folder / "u.data").write_text(""), ["u.data has no rows"]),
    ("movielens-100k", lambda folder: (folder / "u.data.gz").write_bytes(b""), ["u.data and u.data.gz are one file"]),
    ("movielens-1m", add("movies.dat", "9::Up::Down::Drama"), ["movies.dat: 1 of the 4 lines", "'9::Up::Down::Drama'"]),
    ("movielens-32m", change("movies.csv", "title", "name"), ["header has no column 'title'"]),
    ("movielens-32m", cut("ratings.csv.gz"), ["cannot read ratings.csv", "Download it again"]),
    ("amazon-2014", add("meta_Electronics.json.gz", "{'asin': print(1)}"), ["1 of the 40 lines", "Python dictionary", "print(1)"]),
    ("amazon-2014", add("reviews_Electronics_5.json.gz", '{"reviewerID": "A1"'), ["reviews_*.json", "JSON object"]),
    ("amazon-2023", add("All_Beauty.jsonl.gz", '{"parent_asin": "B01", "timestamp": 1}'), ["user_id is empty in 1 of the 8 rows"]),
    ("taobao-ads", change("raw_sample.csv", ",1,0\n", ",1,2\n"), ["clk is neither 0 nor 1 in 3 of the 5 rows"]),
    ("taobao-ads", add("behavior_log.csv.gz", "581738,1494000000,ipv,6250,1"), ["btag is none of pv, cart, fav, buy in 1 of"]),
    ("kuairand", change("log_random_4_22_to_5_08_pure.csv", "is_hate,", ""), ["its header is not that of"]),
    ("dmr", change("alimama_sampled.txt", "328301,", ""), ["81 of the 81 lines", "(267)"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "said"), BAD)
def test_what_is_not_as_published_is_refused(
    spark: SparkSession, tmp_path: Path, name: str, damage: Damage, said: list[str]
) -> None:
    published = tmp_path / "published"
    SETS[name](published)
    damage(published)
    with pytest.raises(ImporterError) as error:
        import_logs(spark, name, str(published), str(tmp_path / "logs"))
    assert [part for part in said if part not in str(error.value)] == [], str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["published"]


def test_an_unknown_set_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(ImporterError, match="no data set 'netflix'; there are amazon-2014, "):
        import_logs(spark, "netflix", str(tmp_path), str(tmp_path / "logs"))
