"""What `finetrace use` and `finetrace doctor` accept, DVC can parse: odd names, odd paths, absent sections."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.compile import write_plan
from finetrace.pipeline.graph import opened
from finetrace.study import Study, parse_study

ROOT = Path(__file__).parents[2]
PATHS = ("a b.csv", "\u00e9/\u00fc.csv", "it's \"x\".csv", "a: b#c.csv", "${plan}.csv", "{a}", "~", "../x.csv")


def study(**sections: Any) -> Study:
    return parse_study({"study": {"name": "demo"}, **sections}, "demo.yaml")


def of_files(path: str, name: str = "own") -> dict[str, Any]:
    return {name: {"path": path, "text": ["text"], "label": "label"}}


def test_odd_names_and_paths_reach_dvc(tmp_path: Path):
    from dvc.repo import Repo

    Repo.init(str(tmp_path), no_scm=True).close()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    models = {name: {"id": "a/b"} for name in ("bert-v1.5", "1e5", "null", "0", "2024-01-01", "no")}
    tasks = {key: value for i, path in enumerate(PATHS) for key, value in of_files(path, f"{i}.5").items()}
    for one in (study(), study(models=models, task_files=tasks,
                               runs=[{"model": list(models), "task": ["0.5", "1.5"]}])):
        write_plan(Layout(tmp_path, tmp_path), one)
        with opened(tmp_path) as graph:
            deps = {path for name, stage in graph.stages.items() if name.startswith("data-files@")
                    for path in stage.reads}
            assert {f"train@{key}" for key in one.trajectories} <= set(graph.stages)
    assert set(PATHS) <= deps


@pytest.mark.parametrize("section", ["task_files", "corpora", "model_folders", "fact_files"])
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("data", "holds results"),
        ("models/", "holds results"),
        (".", "holds results"),
        ("./data/..", "holds results"),
        ("s3://bucket/rows.csv", "is no path of this machine; fetch the files"),
        ("https://host/rows.csv", "is no path of this machine"),
        ("a\nb.csv", "is no path of this machine"),
    ],
)
def test_paths_that_dvc_would_refuse(section: str, path: str, told: str):
    entry = of_files(path) if section == "task_files" else {"own": {"path": path}}
    with pytest.raises(FinetraceError) as caught:
        study(**{section: entry})
    assert f"demo.yaml: {section}: own: path " in str(caught.value) and told in str(caught.value)
