"""Freeze what the audformat library writes: one small database with CSV tables, and the same with Parquet tables.

Made with audformat 1.4.3 and pandas 3.1.1, in any folder::

    python make.py
"""

from pathlib import Path

import audformat
import pandas as pd

HERE = Path(__file__).parent


def database() -> audformat.Database:
    db = audformat.Database("tiny", source="made up")
    for split in ("train", "dev", "test"):
        db.splits[split] = audformat.Split(split)
    db.raters["gold_standard"] = audformat.Rater(audformat.define.RaterType.VOTE)
    db.schemes["emotion"] = audformat.Scheme(labels=["angry", "happy", "sad"])
    db.schemes["emotion.confidence"] = audformat.Scheme("float", minimum=0, maximum=1)
    db.schemes["gender"] = audformat.Scheme(labels=["female", "male", "other"])
    db["people"] = audformat.MiscTable(pd.Index([3, 8, 9], name="speaker"))
    set_column(db, "people", "gender", ["male", "female", "other"])
    db.schemes["speaker"] = audformat.Scheme("int", labels="people")

    files = [f"wav/{letter}.wav" for letter in "abcde"]
    db["files"] = audformat.Table(audformat.filewise_index(files))
    set_column(db, "files", "speaker", [3, 3, 8, 8, 9])
    # By convention the columns of single raters bear their names: nobody's vote.
    db["emotion"] = audformat.Table(audformat.filewise_index(files))
    for rater, label in (("rater1", "angry"), ("rater2", "sad")):
        db.raters[rater] = audformat.Rater()
        db["emotion"][rater] = audformat.Column(scheme_id="emotion", rater_id=rater)
        db["emotion"][rater].set([label] * len(files))

    gold(db, "train", audformat.filewise_index(files[:3]), ["angry", "happy", None], [0.9, 1.0, 0.4])
    gold(db, "dev", audformat.filewise_index(files[3:4]), ["sad"], [0.7])
    segments = audformat.segmented_index(
        [files[4]] * 3, starts=["0s", "1.25s", "61.000000001s"], ends=["1.25s", "61s", pd.NaT]
    )
    gold(db, "test", segments, ["angry", "happy", "angry"], [1.0, 1.0, 1.0])
    return db


def gold(
    db: audformat.Database, split: str, index: pd.Index, labels: list[str | None], confidences: list[float]
) -> None:
    name = f"emotion.{split}.gold_standard"
    db[name] = audformat.Table(index, split_id=split)
    set_column(db, name, "emotion", labels)
    set_column(db, name, "emotion.confidence", confidences)


def set_column(db: audformat.Database, table: str, name: str, values: list[object]) -> None:
    db[table][name] = audformat.Column(scheme_id=name)
    db[table][name].set(values)


if __name__ == "__main__":
    for storage in ("csv", "parquet"):
        database().save(str(HERE / f"audformat_{storage}"), storage_format=storage)
