"""Sentences of word tasks that no training can read are told where the data is made."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.stages import ask_study
from tests.unit.test_annotated_build import DEV, TRAIN, conllu

from finetrace.data.lengths import shortest_input
from finetrace.layout import Layout
from finetrace.pipeline.compile import write_plan

LONG = " ".join(f"w{i}/NOUN" for i in range(41))


def project(root: Path, runs: bool = True, **train: Any) -> Path:
    (root / "tree").mkdir()
    (root / "tree" / "x-ud-train.conllu").write_text(conllu([*TRAIN, LONG]))
    (root / "tree" / "x-ud-dev.conllu").write_text(conllu(DEV))
    content: dict[str, Any] = {
        "study": {"name": "long", "seed": 1}, "model_folders": {"tiny": {"path": "anywhere"}},
        "task_files": {"own": {"like": "ud-pos", "path": "tree"}},
        "runs": [{"model": "tiny", "task": "own", "method": ["ft", "lora"]}] if runs else [], "look": {},
        "train": train}
    write_plan(Layout(root, root), ask_study(root, content))
    return root


def test_a_sentence_with_more_words_than_tokens_is_told_before_any_training(tmp_path, run_script):
    root = project(tmp_path, max_length=40)
    done = run_script("pipelines/data.py", "own", cwd=root)
    assert done.returncode == 1
    assert ("stage data-files@own failed: task_files.own: train has a sentence of 41 words ('w0 w1 w2 w3 w4 w5 w6 "
            "w7'...), of one token each at least, and tiny_own_ft_s1 takes 40 tokens; raise train.max_le")\
        in done.stderr
    assert (root / ".finetrace/logs/data-files@own.log").is_file() and not (root / "data/own").exists()


@pytest.mark.parametrize("asked", [{"max_length": 41}, pytest.param({"runs": False, "max_length": 8},
                                                                      marks=pytest.mark.slow)])
def test_what_may_fit_or_is_not_trained_on_is_made(tmp_path, run_script, asked):
    done = run_script("pipelines/data.py", "own", cwd=project(tmp_path, **asked))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "data/own/manifest.json").read_text())["stage"] == "data"


def test_searches_and_downstream_trainings_count(tmp_path):
    for folder, asked in {"tune": {"task": "t", "train": {"max_length": 30}},
                          "train": {"task": "t", "train": None},
                          "downstream": {"downstream": {"task": "t"}, "train": {"max_length": 20}}}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.json").write_text(json.dumps(asked))
    folders = [tmp_path / name for name in ("tune", "train", "downstream", "absent")]
    assert shortest_input("t", folders) == (20, "one") and shortest_input("other", folders) is None
    assert shortest_input("t", folders[:2]) == (30, "one") and shortest_input("t", folders[1:2]) is None
