"""Which items the side-by-side driver deals out."""

from pathlib import Path

import pytest
import yaml

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.repro import default_jobs, groups, repro

ROOT = Path(__file__).parents[2]


def test_groups_follow_the_order_of_dvc_yaml_and_name_every_item():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    found = groups(ROOT)
    assert found[0] == ["world"]
    assert [g[0].split("@")[0] for g in found] == ["world", "pretrain", "data", "tune", "train", "infodynamics"]
    assert found[4] == [f"train@{key}" for key in params["trajectories"]]
    assert not any(t in ("atlas", "publish") for g in found for t in g)  # they depend on everything: the last repro runs them


def test_micro_studies_use_every_core_and_others_one(tmp_path):
    (tmp_path / "params.yaml").write_text("study: {name: x}\n")
    assert default_jobs(Layout(tmp_path, tmp_path)) >= 1
    (tmp_path / "params.yaml").write_text("study: {name: x}\nmodels: {m: {id: a/b}}\n")
    assert default_jobs(Layout(tmp_path, tmp_path)) == 1


def test_bad_calls_name_the_fix(tmp_path):
    with pytest.raises(FinetraceError, match="take 1 or more"):
        repro(Layout(tmp_path, tmp_path), 0)
    with pytest.raises(FinetraceError, match=r"dvc\.yaml: not found"):
        groups(tmp_path)
