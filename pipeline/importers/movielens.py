"""MovieLens: ratings of movies, with the time of each, the movies' genres and, in the older sets, who the users are.

Published by GroupLens at https://grouplens.org/datasets/movielens/ for research. Each set's README has its terms: the use is to be
acknowledged (Harper and Konstan 2015, https://doi.org/10.1145/2827872), commercial use needs permission, and whether and how the
files may be passed on differs from set to set (the older ones forbid it).

Layouts:

- 100k: ``u.data``, tab-separated user, item, rating, seconds since 1970; ``u.user``, separated by ``|``; ``u.item``, separated by
  ``|``, ISO-8859-1, with 19 flags of genres. No headers. Or RecBole's "atomic files" of it: ``ml-100k.inter``, ``.user``, ``.item``,
  tab-separated, with headers such as ``user_id:token``.
- 1M: ``ratings.dat``, ``users.dat``, ``movies.dat``, separated by ``::``, ISO-8859-1, without headers.
- 25M and 32M: ``ratings.csv`` and ``movies.csv``, UTF-8, with headers and quoted titles. Nothing is said of users.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipeline.importers.canonical_logs import Importer, Log, by_day, with_impression_id
from pipeline.importers.published_files import Delimited, Published

LATIN = "ISO-8859-1"
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Of 100k, in the order of their flags (``u.genre``)."""
NO_GENRE = ("unknown", "(no genres listed)", "")

RATING = {"user_id": "string", "item_id": "string", "rating": "double", "timestamp": "bigint"}
RATINGS_100K = Delimited(("u.data",), RATING, tuple(RATING), separator="\t", header=False)
USERS_100K = Delimited(
    ("u.user",),
    {"user_id": "string", "age": "int", "gender": "string", "occupation": "string", "zip_code": "string"},
    ("user_id",),
    separator="|",
    header=False,
    encoding=LATIN,
)
ITEMS_100K = Delimited(
    ("u.item",),
    {
        **dict.fromkeys(("item_id", "title", "release_date", "video_release_date", "imdb_url"), "string"),
        **dict.fromkeys(GENRES, "int"),
    },
    ("item_id", *GENRES),
    separator="|",
    header=False,
    encoding=LATIN,
)

RATINGS_ATOMIC = Delimited(
    ("ml-100k.inter",),
    {"user_id:token": "string", "item_id:token": "string", "rating:float": "double", "timestamp:float": "double"},
    ("user_id:token", "item_id:token", "rating:float", "timestamp:float"),
    separator="\t",
)
USERS_ATOMIC = Delimited(
    ("ml-100k.user",),
    {"user_id:token": "string", "age:token": "int", "gender:token": "string", "occupation:token": "string",
     "zip_code:token": "string"},
    ("user_id:token",),
    separator="\t",
)  # fmt: skip
ITEMS_ATOMIC = Delimited(
    ("ml-100k.item",),
    dict.fromkeys(("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"), "string"),
    ("item_id:token",),
    separator="\t",
)

RATINGS_1M = Delimited(("ratings.dat",), RATING, tuple(RATING), separator="::", header=False, encoding=LATIN)
USERS_1M = Delimited(
    ("users.dat",),
    {"user_id": "string", "gender": "string", "age": "int", "occupation": "string", "zip_code": "string"},
    ("user_id",),
    separator="::",
    header=False,
    encoding=LATIN,
)
ITEMS_1M = Delimited(
    ("movies.dat",),
    {"item_id": "string", "title": "string", "genres": "string"},
    ("item_id",),
    separator="::",
    header=False,
    encoding=LATIN,
)

RATINGS_32M = Delimited(
    ("ratings.csv",),
    {"userId": "string", "movieId": "string", "rating": "double", "timestamp": "bigint"},
    ("userId", "movieId", "rating", "timestamp"),
)
ITEMS_32M = Delimited(("movies.csv",), {"movieId": "string", "title": "string", "genres": "string"}, ("movieId",), quoted=True)


def impressions(ratings: DataFrame) -> DataFrame:
    """Each rating as an impression; which ratings are positive is the configuration's to say.

    Args:
        ratings: columns ``user_id``, ``item_id``, ``rating``, ``timestamp`` (seconds since 1970).

    Returns:
        Columns ``impression_id``, ``user_id``, ``item_id``, ``time``, ``rating``.
    """
    rows = with_impression_id(ratings, "user_id", "item_id")
    return rows.select("impression_id", "user_id", "item_id", F.timestamp_seconds("timestamp").alias("time"), "rating")


def items(movies: DataFrame) -> DataFrame:
    """The movies.

    Args:
        movies: columns ``item_id``, ``title``, ``genres`` (separated by ``|``), and maybe ``release_year``.

    Returns:
        Columns ``item_id``, ``title``, ``release_year`` (from the end of the title, where there is no such column), ``genre`` (the
        first), ``genres`` (all).
    """
    genres = F.when(~F.col("genres").isin(*NO_GENRE), F.col("genres"))
    year = F.nullif(F.regexp_extract("title", r"\((\d{4})\)\s*$", 1), F.lit(""))
    return movies.select(
        "item_id",
        "title",
        (F.col("release_year") if "release_year" in movies.columns else year).alias("release_year"),
        F.split_part(genres, F.lit("|"), F.lit(1)).alias("genre"),
        genres.alias("genres"),
    )


def genres_of_flags() -> Column:
    """The names of the genres whose flag is set, separated by ``|``."""
    return F.concat_ws("|", *[F.when(F.col(f"`{genre}`") == 1, genre) for genre in GENRES])


def _plain(frame: DataFrame) -> DataFrame:
    """Names of atomic files without their types."""
    return frame.toDF(*[column.split(":")[0] for column in frame.columns])


def _read_100k(published: Published) -> dict[str, Log]:
    if published.has(RATINGS_ATOMIC):
        ratings = _plain(published.read(RATINGS_ATOMIC)).withColumn("timestamp", F.col("timestamp").cast("bigint"))
        users = _plain(published.read(USERS_ATOMIC))
        movies = _plain(published.read(ITEMS_ATOMIC)).select(
            "item_id", F.col("movie_title").alias("title"), "release_year", F.translate("class", " ", "|").alias("genres")
        )
    else:
        ratings, users = published.read(RATINGS_100K), published.read(USERS_100K)
        movies = published.read(ITEMS_100K).select("item_id", "title", genres_of_flags().alias("genres"))
    return {"impressions": by_day(impressions(ratings)), "users": Log(users), "items": Log(items(movies))}


def _read_1m(published: Published) -> dict[str, Log]:
    return {
        "impressions": by_day(impressions(published.read(RATINGS_1M))),
        "users": Log(published.read(USERS_1M)),
        "items": Log(items(published.read(ITEMS_1M))),
    }


def _read_32m(published: Published) -> dict[str, Log]:
    ratings = published.read(RATINGS_32M).withColumnsRenamed({"userId": "user_id", "movieId": "item_id"})
    movies = published.read(ITEMS_32M).withColumnsRenamed({"movieId": "item_id"})
    return {"impressions": by_day(impressions(ratings)), "items": Log(items(movies))}


HOME = "https://grouplens.org/datasets/movielens/"
MOVIELENS_100K = Importer(
    (RATINGS_100K, USERS_100K, ITEMS_100K, RATINGS_ATOMIC, USERS_ATOMIC, ITEMS_ATOMIC), _read_100k, f"{HOME}100k/"
)
MOVIELENS_1M = Importer((RATINGS_1M, USERS_1M, ITEMS_1M), _read_1m, f"{HOME}1m/")
MOVIELENS_32M = Importer((RATINGS_32M, ITEMS_32M), _read_32m, f"{HOME}32m/")
