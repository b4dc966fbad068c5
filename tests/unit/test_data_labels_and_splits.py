"""Tasks from local files: labels, ids and splits, what is refused and how the error helps."""

from pathlib import Path

import pytest
from tests.row_files import GOOD, ROWS, build, csv_text, jsonl_text, refused, tsv_text, write

from finetrace.data import baseline
from finetrace.errors import FinetraceError

# --- labels


def labels(root: Path, values: list[object], **settings) -> tuple[list[str], list[int]]:
    write(
        root,
        train_jsonl=jsonl_text([{"text": "t", "label": v} for v in values]),
        validation_jsonl=jsonl_text([{"text": "t", "label": v} for v in values]),
    )
    facts, tables = build(root, **settings)
    return facts["label_names"], tables["train"]["label"].to_pylist()


@pytest.mark.parametrize(
    ("values", "settings", "names", "numbers"),
    [
        ([1, 0, 2], {}, ["0", "1", "2"], [1, 0, 2]),
        ([10, 9, 10], {}, ["9", "10"], [1, 0, 1]),
        ([-1, 1], {"label_names": ["-1", "1"]}, ["-1", "1"], [0, 1]),
        (["1.0", "0.0"], {}, ["0", "1"], [1, 0]),
        ([1.0, 0], {}, ["0", "1"], [1, 0]),
        ([" 1 ", "0"], {}, ["0", "1"], [1, 0]),
        ([True, False], {"label_names": ["False", "True"]}, ["False", "True"], [1, 0]),
        (["pos", "neg"], {}, ["neg", "pos"], [1, 0]),
        ([1, 0], {"label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0]),
        (["1.0", "0.0"], {"label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0]),
        (["pos", "neg", 1], {"label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0, 1]),
        (["pos", "neg"], {"label_names": ["pos", "neg"]}, ["pos", "neg"], [0, 1]),
        ([2, 1], {"label_names": ["1", "2"]}, ["1", "2"], [1, 0]),
        (["4", "0"], {"label_values": {"0": "neg", "4": "pos"}, "label_names": ["neg", "pos"]}, ["neg", "pos"], [1, 0]),
        ([4, 0], {"label_values": {"0": "neg", "4": "pos"}}, ["neg", "pos"], [1, 0]),
        (["A", "b", "c"], {"label_values": {"A": "x", "b": "y", "c": "x"}}, ["x", "y"], [0, 1, 0]),
    ],
)
def test_labels_as_numbers_names_or_values(tmp_path, values, settings, names, numbers):
    assert labels(tmp_path, values, **settings) == (names, numbers)


@pytest.mark.parametrize(
    ("values", "settings", "words"),
    [
        (
            ["pos", "neg", "neu"],
            {"label_names": ["neg", "pos"]},
            "line 3: unknown label 'neu'; known: neg, pos; mend the row",
        ),
        ([0, 1, 2], {"label_names": ["neg", "pos"]}, "line 3: unknown label '2'; known: neg, pos"),
        ([0, 1], {"label_names": ["1", "2"]}, "line 1: unknown label '0'; known: 1, 2"),
        (
            [0, -1],
            {"label_names": ["neg", "pos"]},
            "line 2: unknown label '-1'; known: neg, pos; -1 says that the row carries no label",
        ),
        ([0, 3], {"label_values": {"0": "neg", "4": "pos"}}, "line 2: unknown label '3'; known: neg, pos"),
        ([0.5, 1], {"label_names": ["neg", "pos"]}, "line 1: unknown label '0.5'"),
        ([0, None, 1], {}, "line 2: has no label (None); mend or remove the row"),
        ([0, "", 1], {}, "line 2: has no label ('')"),
        ([0, float("nan"), 1], {"label_names": ["neg", "pos"]}, "line 2: has no label (nan)"),
        (["²", "x"], {"label_names": ["neg", "pos"]}, "line 1: unknown label '²'"),
        ([1, 1, 1], {}, "there is one class only (1); classification needs two or more"),
        ([1, 1.0, "1.0"], {}, "there is one class only (1)"),
    ],
)
def test_labels_that_are_refused(tmp_path, values, settings, words):
    write(tmp_path, train_jsonl=jsonl_text([{"text": "t", "label": v} for v in values]))
    assert words in refused(tmp_path, **settings)


def test_validation_label_that_training_does_not_have(tmp_path):
    write(tmp_path, train_csv="text,label\na,2\nb,4\n", validation_csv="text,label\na,2\nb,1\n")
    assert "validation.csv line 3: unknown label '1'; known: 2, 4" in refused(tmp_path)


def test_test_split_without_labels(tmp_path):
    write(tmp_path, train_csv=GOOD, validation_csv=GOOD, test_csv="text,label\na,-1\nb,-1\n")
    assert "leave it out of `splits`" in refused(tmp_path)
    assert build(tmp_path, splits={"train": "train.csv", "validation": "validation.csv"})[0]["rows"] == {
        "train": 2,
        "validation": 2,
    }


def test_duplicated_id_names_both_rows(tmp_path):
    write(tmp_path, train_csv="id,text,label\nx,a,0\ny,b,1\nx,c,1\n")
    message = refused(tmp_path, id_column="id")
    assert "train.csv line 4: id 'x' stands already at" in message and "train.csv line 2;" in message


def test_missing_id(tmp_path):
    write(tmp_path, train_csv="id,text,label\nx,a,0\n,b,1\n")
    assert "train.csv line 3: has no id ('')" in refused(tmp_path, id_column="id")


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_two_class_metric_with_three_classes(tmp_path, metric):
    write(tmp_path, train_csv="text,label\na,0\nb,1\nc,2\n", validation_csv="text,label\na,0\n")
    assert f"metric '{metric}' needs 2 classes, but there are 3; use accuracy or macro_f1" in refused(
        tmp_path, metric=metric
    )
    assert build(tmp_path, metric="macro_f1")[0]["metric"] == "macro_f1"


# --- splits


@pytest.mark.parametrize("place", ["../secret.csv", "/etc/passwd", "sub/../../secret.csv", "link.csv"])
def test_splits_cannot_leave_the_folder(tmp_path, place):
    write(tmp_path, train_csv=GOOD)
    (tmp_path / "secret.csv").write_text(GOOD)
    (tmp_path / "rows" / "link.csv").symlink_to(tmp_path / "secret.csv")
    assert "splits.test: " in (message := refused(tmp_path, splits={"train": "train.csv", "test": place}))
    assert "leaves the folder rows" in message


def test_splits_by_their_usual_names_or_as_told(tmp_path):
    write(tmp_path, train_csv=GOOD, val_tsv=tsv_text([{"text": "x", "label": "1"}]), notes_md="# no data")
    assert build(tmp_path)[0]["rows"] == {"train": 2, "validation": 1}
    (tmp_path / "rows" / "sub").mkdir()
    (tmp_path / "rows" / "sub" / "odd.csv").write_text(GOOD)
    assert build(tmp_path, splits={"test": "sub/odd.csv"}, out="out2")[0]["rows"] == {"test": 2}


def test_one_file_is_the_training_split(tmp_path):
    (tmp_path / "all.csv").write_text(csv_text(ROWS))
    assert build(tmp_path, path="all.csv", holdout=0.3)[0]["rows"] == {"train": 5, "validation": 2}
    with pytest.raises(FinetraceError, match="path is one file, so `splits` cannot name others"):
        build(tmp_path, path="all.csv", splits={"train": "all.csv"}, out="out2")


@pytest.mark.parametrize(
    ("files", "settings", "words"),
    [
        ({}, {"path": "nowhere"}, "nowhere: no such file or folder"),
        ({"notes_md": "x"}, {}, "has no train.csv|tsv|jsonl|parquet; name the files with `splits`"),
        ({"train_csv": GOOD, "train_tsv": "x"}, {}, "train.csv, train.tsv could all be train; set `splits`"),
        (
            {"train_csv": GOOD, "dev_csv": GOOD, "val_csv": GOOD},
            {},
            "dev.csv, val.csv could all be validation; set `splits`",
        ),
        ({"train_csv": GOOD}, {"splits": {"train": "trian.csv"}}, "trian.csv does not exist; the folder has train.csv"),
        ({"train_csv": GOOD}, {"splits": {"train": ""}}, "is a folder, not a file; name a file of the folder"),
        (
            {"train_xyz": GOOD},
            {"splits": {"train": "train.xyz"}},
            "its format is not known from its name; set `format`",
        ),
        ({"train_csv": GOOD}, {}, "has no validation split; name one in `splits` or set `holdout`, e.g. 0.1"),
        ({"train_csv": GOOD}, {"holdout": 0.9}, "holdout: 0.9 leaves no training rows of 2"),
        ({"train_csv": GOOD, "test_csv": "text,label\n"}, {"holdout": 0.5}, "test.csv: the split has no rows"),
    ],
)
def test_splits_that_do_not_work(tmp_path, files, settings, words):
    write(tmp_path, **files)
    assert words in refused(tmp_path, **settings)


def numbered(count: int) -> str:
    return csv_text([{"text": f"row {i}", "label": str(i % 2)} for i in range(count)])


def test_holdout_is_seeded_disjoint_and_in_order(tmp_path):
    write(tmp_path, train_csv=numbered(100))
    chosen = []
    for seed in (0, 0, 1):
        facts, tables = build(tmp_path, seed=seed, holdout=0.2, out=f"out{len(chosen)}")
        train, validation = (tables[s]["example_id"].to_pylist() for s in ("train", "validation"))
        assert facts["rows"] == {"train": 80, "validation": 20}
        assert sorted(train + validation) == list(range(100))
        assert train == sorted(train) and validation == sorted(validation)
        assert all(r["text_a"] == f"row {r['example_id']}" for t in tables.values() for r in t.to_pylist())
        chosen.append(validation)
    assert chosen[0] == chosen[1] != chosen[2]


def test_holdout_leaves_an_existing_validation_split_alone(tmp_path):
    write(tmp_path, train_csv=numbered(10), validation_csv=numbered(4))
    assert build(tmp_path, holdout=0.5)[0]["rows"] == {"train": 10, "validation": 4}


def test_max_rows_is_seeded_and_in_order_after_the_holdout(tmp_path):
    write(tmp_path, train_csv=numbered(100), test_csv=numbered(100))
    chosen = []
    for seed in (0, 0, 1):
        facts, tables = build(
            tmp_path,
            seed=seed,
            holdout=0.2,
            max_rows={"train": 30, "test": 30, "validation": 500},
            out=f"o{len(chosen)}",
        )
        found = {s: t["example_id"].to_pylist() for s, t in tables.items()}
        assert facts["rows"] == {"train": 30, "validation": 20, "test": 30}
        assert all(ids == sorted(set(ids)) for ids in found.values())
        assert not set(found["train"]) & set(found["validation"])
        assert found["train"] != found["test"], "splits are drawn independently"
        chosen.append(found)
    assert chosen[0] == chosen[1] != chosen[2]


def test_texts_that_are_all_empty(tmp_path):
    write(tmp_path, train_csv='text,label\n"",0\n" ",1\n', validation_csv=GOOD)
    assert "train.csv: every text is empty (tasks.own); is text the right column?" in refused(tmp_path)


def test_the_floor_of_a_large_task_whose_classes_alternate(monkeypatch):
    monkeypatch.setattr(baseline, "LARGEST", 50)
    rows = [{"text_a": f"{'good' if i % 2 else 'bad'} thing", "text_b": None, "label": i % 2} for i in range(100)]
    assert baseline.bag_of_words_accuracy(rows, rows[:10]) == 1.0


def test_what_a_model_has_to_beat_is_in_the_facts(tmp_path):
    rows = [{"text": f"{'good' if i % 3 else 'bad'} thing {i}", "label": "pos" if i % 3 else "neg"} for i in range(60)]
    write(tmp_path, train_csv=csv_text(rows), validation_csv=csv_text(rows[:30]))
    facts = build(tmp_path)[0]
    assert facts["majority_accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert facts["bag_of_words_accuracy"] == 1.0
