"""SuperGLUE and sets out of distribution from a hub on loopback, through the stage `data`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.hub import Hub, commit
from tests.stages import ask_study

PIPELINE = Path(__file__).resolve().parents[2] / "pipelines" / "data.py"
NAMES = ["entailment", "not_entailment"]
SPLITS = {"rte": {"train": 25, "validation": 6, "test": 4}, "axg": {"test": 8}, "axb": {"test": 4}}
CARD = {"dataset_info": [{"config_name": config, "features": [
    {"name": "premise", "dtype": "string"}, {"name": "hypothesis", "dtype": "string"},
    {"name": "label", "dtype": {"class_label": {"names": dict(enumerate(NAMES))}}}]} for config in ("rte", "axg")],
        "configs": [{"config_name": config,
                     "data_files": [{"split": split, "path": f"{config}/{split}-*"} for split in splits]}
                    for config, splits in SPLITS.items()]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """aps/super_glue with rte (its test rows carry no labels), axg with labels, and an axb without."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "datasets" / "aps" / "super_glue" / "main"
    for config, splits in SPLITS.items():
        (folder / config).mkdir(parents=True)
        for split, count in splits.items():
            labelled = config != "axb" and (config, split) != ("rte", "test")
            texts = ("sentence1", "sentence2") if config == "axb" else ("premise", "hypothesis")
            rows = [{texts[0]: f"{config} {split} {i}", texts[1]: "so", "label": i % 2 if labelled else -1}
                    for i in range(count)]
            pq.write_table(pa.Table.from_pylist(rows), folder / config / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(CARD, sort_keys=False)}---\n")
    return root


def run(hub: Hub, folder: Path, task: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    ask_study(folder, {"study": {"name": "x"}, "tasks": {"superglue-rte": task}})
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "DVC_ROOT": "",
            "PYTHONPATH": ":".join(p for p in sys.path if p)}
    return subprocess.run([sys.executable, str(PIPELINE), "superglue-rte"], cwd=folder, env=env, text=True,
                          capture_output=True, timeout=240, check=False)


def test_published_splits_and_a_diagnostic_set(served, tmp_path):
    with Hub(served) as hub:
        done = run(hub, tmp_path, {"ood": {"axg": "superglue-axg"}})
    assert done.returncode == 0, done.stderr
    data = tmp_path / "data" / "superglue-rte"
    assert pq.read_table(data / "validation.parquet")["text_a"].to_pylist() == [f"rte train {i}" for i in (22, 23, 24)]
    assert [pq.read_table(data / f"{split}.parquet").num_rows for split in ("train", "test")] == [22, 6]
    assert pq.read_table(data / "test.parquet")["text_a"].to_pylist()[0] == "rte validation 0"
    facts = json.loads((data / "ood" / "manifest.json").read_text())["facts"]
    origin = {"id": "aps/super_glue", "config": "axg", "split": "test",
              "revision": commit(served / "datasets" / "aps" / "super_glue" / "main")}
    assert facts["sets"]["axg"] == {"rows": 8, "label_shares": {"entailment": 0.5, "not_entailment": 0.5},
                                    "origin": origin}
    assert pq.read_table(data / "ood" / "axg.parquet")["label"].to_pylist() == [0, 1] * 4


def test_a_set_without_labels_is_named(served, tmp_path):
    with Hub(served) as hub:
        done = run(hub, tmp_path, {"ood": {"axb": "superglue-axb"}})
    assert done.returncode == 1
    assert "hub data set aps/super_glue/axb split test row 0: unknown label '-1'" in done.stderr
    assert "-1 says that the row carries no label" in done.stderr
