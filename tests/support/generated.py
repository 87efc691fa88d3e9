"""Published sets in small: rows that nobody published, in the layout of those that were, byte for byte."""

from __future__ import annotations

import calendar
import datetime as dt
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

GENRE_FLAGS = 19


def seconds(year: int, month: int, day: int, hour: int = 12) -> int:
    return calendar.timegm((year, month, day, hour, 0, 0))


def write(path: Path, lines: Sequence[str], *, encoding: str = "utf-8", end: str = "\n") -> None:
    """A file of lines, compressed where its name says so."""
    content = "".join(line + end for line in lines).encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _flags(*on: int) -> str:
    return "|".join(str(int(i in on)) for i in range(GENRE_FLAGS))


def movielens_100k(folder: Path) -> None:
    times = [seconds(1997, 9, 20), seconds(1998, 3, 6), seconds(1998, 3, 7), seconds(1998, 3, 31), seconds(1998, 4, 1)]
    ratings = [f"7\t{1 + i % 2}\t{1 + i}\t{time}" for i, time in enumerate(times[:2])]
    ratings += [f"8\t{1 + i}\t5\t{time}" for i, time in enumerate(times[2:])]
    write(folder / "u.data", [*ratings, f"7\t267\t3\t{seconds(1998, 4, 22, 23)}"])
    write(folder / "u.user", ["7|24|M|technician|85711", "8|53|F|other|T8H1N"])
    write(
        folder / "u.item",
        [
            f"1|Café au Lait (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Caf%E9%20(1995)|{_flags(3, 4, 5)}",
            f'2|Who "Is" It (1996)|22-Feb-1996||http://us.imdb.com/M/title-exact?Who|{_flags(18)}',
            f"3|Four Rooms (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Four|{_flags(16)}",
            f"267|unknown||||{_flags(0)}",
        ],
        encoding="iso-8859-1",
    )


def movielens_100k_atomic(folder: Path) -> None:
    write(
        folder / "ml-100k.inter",
        ["user_id:token\titem_id:token\trating:float\ttimestamp:float", "7\t1\t4\t881250949", "8\t2\t3\t881250950"],
    )
    write(
        folder / "ml-100k.user",
        ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token", "7\t24\tM\ttechnician\t85711",
         "8\t53\tF\tother\t94043"],
    )  # fmt: skip
    write(
        folder / "ml-100k.item",
        ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq", "1\tCopycat\t1995\tAnimation Children's Comedy",
         "2\tunknown\t\tunknown"],
    )  # fmt: skip


def movielens_1m(folder: Path) -> None:
    days = [(5, 1), (11, 30), (12, 1), (12, 10), (12, 11), (12, 31)]
    write(folder / "ratings.dat", [f"1::{i + 1}::{i % 5 + 1}::{seconds(2000, *day)}" for i, day in enumerate(days)])
    write(folder / "users.dat", ["1::F::1::10::48067", "2::M::56::16::70072-1234"])
    write(
        folder / "movies.dat",
        ["1::Toys: A Story (1995)::Animation|Children's|Comedy", '2::"Great" Cats, The (1998)::Musical',
         "3::Misérables, Les (1995)::Drama|Musical"],
        encoding="iso-8859-1",
    )  # fmt: skip


def movielens_32m(folder: Path) -> None:
    days = [(2018, 1, 1), (2022, 12, 31), (2023, 1, 1), (2023, 3, 31), (2023, 4, 1), (2023, 9, 30)]
    ratings = [f"1,{i + 1},{5 - i / 2},{seconds(*day)}" for i, day in enumerate(days)]
    write(folder / "ratings.csv.gz", ["userId,movieId,rating,timestamp", *ratings], end="\r\n")
    write(
        folder / "movies.csv",
        ["movieId,title,genres", "1,Toys (1995),Adventure|Children", '2,"""Great"" Cats, The (1998)",Musical',
         "3,Élan: A Film,(no genres listed)"],
        end="\r\n",
    )  # fmt: skip


def amazon_reviews(users: int, seed: int = 0) -> list[dict[str, object]]:
    """Users with 5 to 12 reviews of 40 items, several on a day."""
    draw = random.Random(seed)
    reviews: list[dict[str, object]] = []
    for user in range(users):
        for item in draw.sample(range(40), draw.randint(5, 12)):
            day = dt.date(1999, 5, 1) + dt.timedelta(days=draw.choice([0, 1, 700, 701, 5000]))
            reviews.append(
                {
                    "reviewerID": f"A{user:03}",
                    "asin": f"B{item:03}",
                    "reviewerName": 'J. "Jay" O\'Neil',
                    "helpful": [0, 1],
                    "reviewText": "Good, isn't it?\nSí, “muy”.",
                    "overall": float(draw.randint(1, 5)),
                    "summary": "Good",
                    "unixReviewTime": seconds(day.year, day.month, day.day, 0),
                    "reviewTime": f"{day.month:02} {day.day}, {day.year}",
                }
            )
    return sorted(reviews, key=lambda review: str(review["asin"]))


def amazon_2014(folder: Path) -> None:
    write(folder / "reviews_Electronics_5.json.gz", [json.dumps(review) for review in amazon_reviews(150)])
    items: list[dict[str, object]] = [
        {
            "asin": f"B{item:03}",
            "categories": [["Electronics", "Computers & Accessories"], ["Electronics", "Cables", f"Men's {item % 3}"]],
            "description": 'It\'s a "cable"',
            "title": 'The 6\' "HDMI"',
            "price": 10.5 + item,
            "salesRank": {},
            "imUrl": "http://ecx.images-amazon.com/images/I/1.jpg",
            "related": {"also_viewed": ["B000"]},
            "brand": "O'Neil" if item % 2 else "",
        }
        for item in range(38)
    ]
    write(folder / "meta_Electronics.json.gz", [repr(item) for item in [*items, {"asin": "B038", "categories": [[]]}]])


def amazon_2023(folder: Path) -> None:
    days = [(2022, 1, 1), (2022, 12, 31), (2023, 1, 1), (2023, 1, 31), (2023, 2, 1), (2023, 3, 31)]
    reviews = [
        {"rating": 5.0, "title": "Nice", "text": "It's \"nice\"", "images": [], "asin": f"B0{i}A", "parent_asin": f"B0{i}",
         "user_id": "AGKHLEW2", "timestamp": seconds(*day) * 1000 + 721, "helpful_vote": 0, "verified_purchase": True}
        for i, day in enumerate(days)
    ]  # fmt: skip
    write(folder / "All_Beauty.jsonl.gz", [json.dumps(review) for review in [*reviews, reviews[0]]])
    prices = [None, "None", "from 14.99", 9.99, "19.99", 5]
    write(
        folder / "meta_All_Beauty.jsonl.gz",
        [
            json.dumps(
                {"main_category": "All Beauty", "title": "Soap", "average_rating": 4.8, "rating_number": 10, "features": [],
                 "price": price, "images": [{"thumb": "https://x"}], "store": None if i else "Howard",
                 "categories": ["Beauty", "Soap"] if i % 2 else [], "details": {"UPC": "6"}, "parent_asin": f"B0{i}",
                 "bought_together": None}
            )
            for i, price in enumerate(prices)
        ],
    )  # fmt: skip


def taobao_ads(folder: Path) -> None:
    # 2017-05-05 16:00 UTC is midnight of the 6th in Beijing
    times = [seconds(2017, 5, 5, 16), seconds(2017, 5, 11, 15), seconds(2017, 5, 12, 1), seconds(2017, 5, 13, 15)]
    samples = [f"{581738 + i % 2},{time},{10 + i},430548_1007,{1 - i % 2},{i % 2}" for i, time in enumerate(times)]
    write(folder / "raw_sample.csv", ["user,time_stamp,adgroup_id,pid,nonclk,clk", *samples, samples[0]])
    write(
        folder / "ad_feature.csv",
        ["adgroup_id,cate_id,campaign_id,customer,brand,price", "10,6406,83237,1,95471,170.0", "11,6406,83237,1,NULL,1.0E8"],
    )
    write(
        folder / "user_profile.csv",
        ["userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,new_user_class_level ",
         "581738,0,5,2,5,,3,0,3", "581739,7,5,1,5,2,3,0,"],
    )  # fmt: skip
    write(
        folder / "behavior_log.csv.gz",
        ["user,time_stamp,btag,cate,brand", f"581738,{times[0] - 60},pv,6250,91286", f"581738,{times[0] - 30},cart,6250,91286",
         f"581739,{times[1]},fav,6251,91287", f"581739,{times[1] + 1},buy,6251,91287"],
    )  # fmt: skip


def kuairand(folder: Path) -> None:
    header = (
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,"
        "duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    )

    def line(month: int, day: int, click: int, rand: int = 0) -> str:
        time = seconds(2022, month, day, 17) * 1000 - 86_400_000 + 860  # 01:00 of that day in Beijing
        return f"0,1071,2022{month:02}{day:02},100,{time},{click},0,0,0,0,0,1,175045,87433,0,0,0,{rand},1"

    write(folder / "log_standard_4_08_to_4_21_pure.csv", [header, line(4, 8, 1)])
    later = [line(4, 28, 0), line(4, 29, 1), line(5, 1, 0), line(5, 2, 0), line(5, 8, 1)]
    write(folder / "log_standard_4_22_to_5_08_pure.csv", [header, *later])
    write(folder / "log_random_4_22_to_5_08_pure.csv", [header, line(5, 2, 0, 1)])
    onehot = ",".join(f"onehot_feat{i}" for i in range(18))
    write(
        folder / "user_features_pure.csv",
        ["user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,follow_user_num_range,"
         f"fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,register_days_range,{onehot}",
         '0,full_active,0,0,1,5,"(0,10]",312,"[100,1k)",0,0,3624,730+,0,2,2,1153,,0.0,0,31,354,3,3,2,1,0,0,0,0,0'],
    )  # fmt: skip
    write(
        folder / "video_features_basic_pure.csv",
        ["video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,music_id,"
         "music_type,tag", '1071,441,NORMAL,2022-04-01,ShortImport,1.0,17200.0,720.0,1280.0,989206467,4.0,"12,65"',
         "1072,442,AD,,Web,,,,,,,"],
    )  # fmt: skip


def dmr(folder: Path) -> None:
    draw = random.Random(0)

    def line(uid: int, real: int) -> str:
        padding = ["0"] * (50 - real)
        types = padding + [str(draw.randint(1, 4)) for _ in range(real)]
        categories = padding + [str(9000 + i) for i in range(real)]
        brands = padding + [str(200_000 + i) for i in range(real)]
        mask = padding + ["1"] * real
        match = [*mask[:-1], "0"]
        candidate = ["328301", "6410", "233148", "206117", "121422", "0.98971260954681", "1", str(uid % 2)]
        user = [str(1_000_000 + uid), "27", "4", "2", "4", "1", "2", "0", "4"]
        return ",".join([*types, *categories, *brands, *mask, *match, *user, *candidate])

    lines = [line(uid, 50 if uid else 2) for uid in range(80)]
    write(folder / "alimama_sampled.txt", [*lines, lines[0]])


SETS = {
    "amazon-2014": amazon_2014,
    "amazon-2023": amazon_2023,
    "dmr": dmr,
    "kuairand": kuairand,
    "movielens-100k": movielens_100k,
    "movielens-1m": movielens_1m,
    "movielens-32m": movielens_32m,
    "taobao-ads": taobao_ads,
}
