"""finetrace export: a checkpoint of adapters becomes a whole model that needs neither its base nor peft."""

import pytest
import torch
from tests.training_fixtures import SEEDS, model_folder, recording, settings, task_folder

from finetrace.cli import main
from finetrace.config.training import MethodSettings
from finetrace.models.load import load_tokenizer
from finetrace.models.saved import load_trained
from finetrace.training.finetune import finetune


@pytest.fixture
def project(tmp_path, monkeypatch):
    model_folder(tmp_path / "models" / "tiny")
    task_folder(tmp_path / "data" / "toy")
    place = tmp_path / "outputs" / "tiny" / "toy" / "lora" / "s1" / "trajectory"
    place.mkdir(parents=True)
    wanted = settings(head="linear", max_steps=4, lora_rank=2)
    finetune(tmp_path / "models" / "tiny", tmp_path / "data" / "toy", wanted, recording(), SEEDS,
             scratch=tmp_path / "scratch", out=place, name="t", method=MethodSettings(kind="lora"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_exported_checkpoint_predicts_the_same_and_has_its_tokenizer(project, capsys):
    last = "outputs/tiny/toy/lora/s1/trajectory/checkpoints/step-00000004"
    assert main(["export", last, "whole"]) == 0
    assert "written: whole" in capsys.readouterr().out
    batch = load_tokenizer(project / "whole")(["good1 bad2 plain3", "bad1"], padding=True, return_tensors="pt")
    batch.pop("token_type_ids")
    with torch.no_grad():
        expected = load_trained(project / last, project / "models" / "tiny")(**batch).logits
        torch.testing.assert_close(load_trained(project / "whole")(**batch).logits, expected, atol=1e-6, rtol=0)
    assert not [p for p in (project / "whole").iterdir() if "adapter" in p.name]
    assert main(["export", last, "whole"]) == 1 and "is there already" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused_and_nothing_is_left(project, capsys):
    assert main(["export", "outputs/tiny", "whole"]) == 1
    assert "is no complete checkpoint" in capsys.readouterr().err and not (project / "whole").exists()
