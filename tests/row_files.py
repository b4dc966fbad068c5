"""A task in files of every format, built or refused."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrace.config.base import parse
from finetrace.config.data import TaskSettings
from finetrace.data.build import build_task
from finetrace.errors import FinetraceError

ROWS = [
    {"text": "a fine film", "label": "good"},
    {"text": "an awful film", "label": "bad"},
    {"text": "élève, où ça ? « oui »", "label": "good"},
    {"text": "这部电影很好", "label": "good"},
    {"text": "🎬 0/10 👎🏽", "label": "bad"},
    {"text": 'he said "no"', "label": "bad"},
    {"text": "  spaces  ", "label": "good"},
]


def task(**settings) -> TaskSettings:
    values = {"source": "files", "path": "rows", "text": ["text"], "label": "label", **settings}
    return parse(TaskSettings, {k: v for k, v in values.items() if v is not None}, "params.yaml: tasks.own")


def write(root: Path, **files: str | bytes) -> Path:
    """Files of rows/: `train_csv="..."` is rows/train.csv."""
    folder = root / "rows"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        stem, extension = name.rsplit("_", 1)
        (folder / f"{stem}.{extension}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def build(root: Path, seed: int = 0, out: str = "out", **settings):
    """(facts, split -> table) of the task in rows/."""
    facts = build_task("own", task(**settings), root / out, root=root, seed=seed)
    return facts, {p.stem: pq.read_table(p) for p in (root / out).glob("*.parquet")}


def refused(root: Path, **settings) -> str:
    with pytest.raises(FinetraceError) as caught:
        build(root, **settings)
    assert not list(root.glob("out/*")), "nothing is written when rows are refused"
    return str(caught.value)


def csv_text(rows: list[dict[str, str]], ending: str = "\n") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["text", "label"], lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def tsv_text(rows: list[dict[str, str]], ending: str = "\n") -> str:
    return "".join("\t".join(r) + ending for r in (["text", "label"], *([r["text"], r["label"]] for r in rows)))


def jsonl_text(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)


def parquet_bytes(rows: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


FORMATS = {"csv": csv_text, "tsv": tsv_text, "jsonl": jsonl_text, "parquet": parquet_bytes}
GOOD = "text,label\nfine,1\nawful,0\n"
