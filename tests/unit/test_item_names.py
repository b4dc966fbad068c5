"""What an item is called where its script is run by hand: as DVC and the driver call it."""

import pytest

from finetrace.layout import Layout
from finetrace.pipeline.names import label_of

PLAN = """plan:
  data: {}
  data-files:
    "reviews": {"path": "a.csv"}
  model-folder:
    mine: {}
  fact-files:
    lama: {}
  train:
    a_t_ft_s1: {}
  train-tuned:
    a_t_ft-tuned_s1: {}
"""


@pytest.mark.parametrize(("stage", "item", "label"), [
    ("data", "reviews", "data-files@reviews"), ("data", "sst2", "data@sst2"), ("model", "mine", "model-folder@mine"),
    ("facts", "lama", "fact-files@lama"), ("train", "a_t_ft_s1", "train@a_t_ft_s1"),
    ("train", "a_t_ft-tuned_s1", "train-tuned@a_t_ft-tuned_s1"), ("hidden", "reviews", "hidden@reviews"),
    ("atlas", "", "atlas")])
def test_by_hand_the_plan_says_the_name(tmp_path, monkeypatch, stage, item, label):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    layout = Layout(tmp_path, tmp_path)
    assert label_of("data", "reviews", layout) == "data@reviews", "without a plan"
    layout.plan.write_text(PLAN)
    assert label_of(stage, item, layout) == label


@pytest.mark.parametrize("plan", ["plan: [", "plan: 3", "", "other: {}", "plan: {data-files: 3}"])
def test_a_plan_that_cannot_be_read_is_no_obstacle(tmp_path, monkeypatch, plan):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    layout = Layout(tmp_path, tmp_path)
    layout.plan.write_text(plan)
    assert label_of("data", "reviews", layout) == "data@reviews"


def test_dvc_and_the_driver_say_the_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "data-files@reviews")
    assert label_of("data", "reviews", Layout(tmp_path, tmp_path)) == "data-files@reviews"
