"""The stage hidden on a real, tiny trajectory: complete, resumable, the same bytes, clear about bad input."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tests.damage import WAYS
from tests.training_fixtures import bert_config, model_folder, recording, settings, task_folder

from finetrace.config.hidden import HiddenSettings
from finetrace.errors import FinetraceError
from finetrace.inference import trajectory as stage
from finetrace.inference.trajectory import extract_trajectory
from finetrace.models.load import load_encoder
from finetrace.models.timeline import chosen_steps
from finetrace.store.checkpoints import mark
from finetrace.store.hidden import LayerMajorFile, finite, read_hidden
from finetrace.store.manifest import Manifest, complete, read_manifest
from finetrace.training.finetune import RunSeeds, finetune

ROWS = {"train": 30, "validation": 20}
HIDDEN = HiddenSettings(rows=ROWS, token_rows={"validation": 6}, batch_tokens=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """model, task and trajectory folders; checkpoints 0, 1, 2, 4, 8, 16."""
    root = tmp_path_factory.mktemp("trained")
    model, task = model_folder(root / "model"), task_folder(root / "task")
    (root / "trajectory").mkdir()
    finetune(model, task, settings(), recording(checkpoints="log2"), RunSeeds.of(0, 1), scratch=root / "scratch",
             out=root / "trajectory", name="tiny")
    return model, task, root / "trajectory"


def extraction(trained, folder, hidden=HIDDEN, seed=5, name="tiny"):
    model, task, trajectory = trained
    (folder / "hidden").mkdir(parents=True, exist_ok=True)
    facts = extract_trajectory(trajectory, model, task, hidden, 16, seed, scratch=folder / "scratch",
                               out=folder / "hidden", name=name)
    facts.pop("device")
    complete(folder / "hidden", Manifest("hidden", "hidden", name, "0", {}, {}, {}, facts), started=0.0)
    return read_hidden(folder / "hidden")


@pytest.fixture(scope="module")
def hidden(trained, tmp_path_factory):
    return extraction(trained, tmp_path_factory.mktemp("hidden"))


def copied(trained, tmp_path):
    model, task, trajectory = trained
    return model, task, shutil.copytree(trajectory, tmp_path / "trajectory")


def test_all_checkpoints_layers_splits_and_rows_are_there(hidden):
    assert hidden.steps == [0, 1, 2, 4, 8, 16]
    assert {s: len(hidden.rows(s)) for s in ROWS} == ROWS
    assert hidden.vectors(8).shape == hidden.vectors(8, "mean").shape == (3, 50, 16)
    assert hidden.tokens(16).shape == (3, len(hidden.token_ids), 16) and len(hidden.sentence_rows) == 6
    assert hidden.label_names == ["negative", "positive"]
    assert set(hidden.sentence_rows.tolist()) <= set(hidden.rows("validation").tolist())
    assert hidden.manifest.facts["truncated"] == 0


def test_tokens_mean_and_sentence_vector_belong_together(hidden):
    assert len(hidden.sentence_rows) > 0
    for step in (0, 16):
        tokens, cls, mean = hidden.tokens(step), hidden.vectors(step), hidden.vectors(step, "mean")
        for i, row in enumerate(hidden.sentence_rows):
            start, end = hidden.offsets[i], hidden.offsets[i + 1]
            np.testing.assert_allclose(tokens[:, start], cls[:, row], atol=1e-6)
            np.testing.assert_allclose(tokens[:, start:end].mean(axis=1), mean[:, row], atol=1e-6)
            assert hidden.special[start:end].sum() == 2 and hidden.special[[start, end - 1]].all()


def test_checkpoints_differ_where_training_changed_them_and_step_0_is_the_pretrained_model(trained, hidden):
    assert not np.allclose(hidden.vectors(0)[2], hidden.vectors(16)[2], atol=1e-3)
    plain, first = (
        load_encoder(trained[0]).state_dict(),
        load_encoder(trained[2] / "checkpoints" / "step-00000000").state_dict(),
    )
    assert all((plain[k] == first[k]).all() for k in plain if "pooler" not in k)


def test_two_extractions_are_the_same_bytes(trained, hidden, tmp_path):
    again = extraction(trained, tmp_path)
    files = sorted(p.relative_to(hidden.folder) for p in hidden.folder.rglob("*") if p.is_file()
                   and p.name != "cost.json")
    assert len(files) == 4 + 6 * 3
    assert all((hidden.folder / f).read_bytes() == (again.folder / f).read_bytes() for f in files)


def test_a_killed_extraction_continues_after_its_last_checkpoint(trained, hidden, tmp_path, monkeypatch):
    true, done = stage.extract, []

    def breaks(model, rows, collator, out, **options):
        if len(done) == 3:
            (out / "cls.npy").write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(out)
        true(model, rows, collator, out, **options)

    monkeypatch.setattr(stage, "extract", breaks)
    with pytest.raises(KeyboardInterrupt):
        extraction(trained, tmp_path)
    assert len(list((tmp_path / "scratch").glob("step-*"))) == 3
    done.clear()
    again = extraction(trained, tmp_path)
    assert len(done) == 3
    for step in hidden.steps:
        np.testing.assert_array_equal(hidden.tokens(step), again.tokens(step))


@pytest.fixture(scope="module")
def killed(trained, tmp_path_factory):
    """An extraction that ended after three of six checkpoints."""
    folder, true, done = tmp_path_factory.mktemp("killed"), stage.extract, []

    def breaks(*arguments, **options):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(true(*arguments, **options))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "extract", breaks)
        extraction(trained, folder)
    return folder


@pytest.mark.parametrize(("file", "how"), [("cls.npy", "flipped"), ("tokens.npy", "truncated"),
                                           ("whole.json", "flipped")])
def test_pieces_that_were_damaged_since_are_made_again(trained, hidden, killed, tmp_path, file, how, caplog):
    folder = shutil.copytree(killed, tmp_path / "here")
    WAYS[how](folder / "scratch/step-00000001" / file)
    again = extraction(trained, folder)
    assert "step-00000001: is damaged since it was written" in caplog.text
    assert again.manifest.files == hidden.manifest.files


def test_a_tokenizer_that_pads_left_changes_nothing(trained, hidden, tmp_path):
    model = shutil.copytree(trained[0], tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    again = extraction((model, *trained[1:]), tmp_path)
    np.testing.assert_allclose(hidden.tokens(16), again.tokens(16), atol=1e-6)


def test_settings_say_what_is_kept(trained, tmp_path):
    chosen = HiddenSettings(rows={"train": 0, "test": 4}, token_rows={}, vectors=["mean"], checkpoints=[2, 999],
                            dtype="float16")
    found = extraction(trained, tmp_path, chosen)
    assert found.steps == [0, 2, 16] and {s: len(found.rows(s)) for s in ("train", "test")} == {"train": 64, "test": 4}
    assert found.vectors(2, "mean").dtype == np.float16
    with pytest.raises(FinetraceError, match=r"cls.npy: was not extracted; add cls to hidden.vectors"):
        found.vectors(2)
    with pytest.raises(FinetraceError, match=r"tokens.npy: was not extracted; set hidden.token_rows"):
        found.tokens(2)
    with pytest.raises(FinetraceError, match=r"has no checkpoint 7; it has 0, 2, 16"):
        found.vectors(7, "mean")
    with pytest.raises(FinetraceError, match=r"no rows of the split 'validation'; add it to hidden.rows .*there are "
                                             r"test, train"):
        found.rows("validation")


def test_first_rows_are_the_first_ones(trained, tmp_path):
    found = extraction(trained, tmp_path,
                       HiddenSettings(rows={"validation": 5}, token_rows={"validation": 2}, choose="first"))
    assert found.example_ids.tolist() == [1000, 1001, 1002, 1003, 1004] and found.sentence_rows.tolist() == [0, 1]


def test_a_truncated_array_is_refused(hidden, tmp_path):
    folder = shutil.copytree(hidden.folder, tmp_path / "hidden")
    file = folder / "step-00000004" / "tokens.npy"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FinetraceError, match=r"step-00000004/tokens.npy: \d+ instead of \d+ bytes; delete the folder "
                                             r".* and run"):
        read_hidden(folder)


def test_an_array_of_another_shape_is_refused(hidden, tmp_path):
    folder = shutil.copytree(hidden.folder, tmp_path / "hidden")
    opened = read_hidden(folder)
    np.save(folder / "step-00000004" / "cls.npy", np.zeros((2, 50, 16), np.float32))
    with pytest.raises(FinetraceError, match=r"cls.npy: has shape \(2, 50, 16\) instead of \(3, 50, 16\)"):
        opened.vectors(4)


def test_states_that_are_not_finite_are_named(hidden):
    values = np.array(hidden.vectors(4)[1])
    assert finite(values, hidden, 4, "cls", 1) is values
    values[17, 3] = np.inf
    with pytest.raises(FinetraceError, match=r"step-00000004/cls.npy layer 1 row 17: holds NaN or infinity"):
        finite(values, hidden, 4, "cls", 1)


def test_a_diverged_checkpoint_names_its_folder(trained, tmp_path):
    model, task, trajectory = copied(trained, tmp_path)
    folder = trajectory / "checkpoints" / "step-00000008"
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    mark(folder, 8)
    with pytest.raises(FinetraceError, match=r"step-00000008: layer 1 of example \d+ is not finite"):
        extraction((model, task, trajectory), tmp_path / "x")
    assert not (tmp_path / "x" / "hidden" / "manifest.json").exists()


def test_a_checkpoint_of_another_architecture_is_refused(trained, tmp_path):
    model, task, trajectory = copied(trained, tmp_path)
    other = model_folder(tmp_path / "other", bert_config(width=32))
    shutil.rmtree(trajectory / "checkpoints" / "step-00000004")
    shutil.copytree(other, trajectory / "checkpoints" / "step-00000004")
    mark(trajectory / "checkpoints" / "step-00000004", 4)
    with pytest.raises(FinetraceError, match=r"step-00000004: is another architecture than .*: hidden_size is 32 "
                                             r"instead of 16"):
        extraction((model, task, trajectory), tmp_path / "x")


def test_missing_checkpoints_and_splits_are_named(trained, tmp_path):
    model, task, trajectory = copied(trained, tmp_path)
    with pytest.raises(FinetraceError, match=r"step 3 was not recorded in .* there are 0, 1, 2, 4, 8, 16; name these"):
        extraction(trained, tmp_path / "a", HiddenSettings(rows=ROWS, checkpoints=[3]))
    less = shutil.copytree(task, tmp_path / "less" / "task")
    (less / "test.parquet").unlink()
    complete(less, read_manifest(less, verify=False))
    with pytest.raises(FinetraceError, match=r"hidden.rows: task has none of test; it has train, validation"):
        extraction((model, less, trajectory), tmp_path / "b", HiddenSettings(rows={"test": 5}, token_rows={}))
    shutil.rmtree(trajectory / "checkpoints")
    with pytest.raises(FinetraceError, match=r"has no checkpoints; set record.checkpoints, e.g. log2, and train again"):
        extraction((model, task, trajectory), tmp_path / "c")


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(FinetraceError, match=r"hidden: needs 0.0 GB of disk for tiny, more than is free; lower "
                                             r"hidden.rows"):
        extraction(trained, tmp_path)
    assert not list((tmp_path / "hidden").iterdir())


def test_the_ends_are_always_among_the_checkpoints(tmp_path):
    recorded = [0, 4, 9]
    assert chosen_steps(recorded, "ends", tmp_path) == [0, 9]
    assert chosen_steps(recorded, [4], tmp_path) == [0, 4, 9]
    assert chosen_steps(recorded, "all", tmp_path) == [0, 4, 9]


def test_a_layer_major_file_is_a_plain_npy_file_written_in_any_order(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 20, 4)).astype(np.float32)
    with LayerMajorFile(tmp_path / "a.npy", 3, 20, 4, "float32") as file:
        for start in (15, 0, 5, 10):
            file.put(start, values[:, start:start + 5])
        with pytest.raises(ValueError, match=r"does not fit"):
            file.put(18, values[:, :5])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values)
