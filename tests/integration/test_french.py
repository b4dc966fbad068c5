"""The two models of the French study, tiny and with their own kinds of tokenizer, from training to hidden states."""

import numpy as np
import pyarrow as pa
import pytest
from tests.french_models import camembert_folder, flaubert_folder, reviews
from tests.training_fixtures import recording, settings

from finetrace.config.hidden import HiddenSettings
from finetrace.inference.trajectory import extract_trajectory
from finetrace.models.load import load_encoder, load_tokenizer
from finetrace.store.files import atomic_folder
from finetrace.store.hidden import read_hidden
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import write_table
from finetrace.training.finetune import RunSeeds, finetune


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("french") / "reviews"
    with atomic_folder(folder) as out:
        rows = {"train": 48, "validation": 16}
        for split, count in rows.items():
            texts, labels = reviews(count)
            write_table(out / f"{split}.parquet", {
                "example_id": pa.array(range(count), pa.int64()), "source_id": pa.array([None] * count, pa.string()),
                "text_a": texts, "text_b": pa.array([None] * count, pa.string()),
                "label": pa.array(labels, pa.int32())})
        facts = {"kind": "sequence", "label_names": ["negative", "positive"], "metric": "accuracy", "rows": rows}
        complete(out, Manifest("data", "data", "reviews", "0", {}, {}, {}, facts), started=0.0)
    return folder


@pytest.mark.parametrize(("make", "pad", "first", "last"), [(camembert_folder, 1, 5, 6), (flaubert_folder, 2, 0, 1)])
def test_a_french_model_is_trained_and_its_layers_are_extracted(make, pad, first, last, task, tmp_path):
    model = make(tmp_path / "model", reviews(64)[0])
    tokenizer = load_tokenizer(model)
    ids = tokenizer("film")["input_ids"]
    assert (tokenizer.pad_token_id, ids[0], ids[-1]) == (pad, first, last)
    (tmp_path / "trajectory").mkdir()
    finetune(model, task, settings(max_length=24), recording(checkpoints="epochs"), RunSeeds.of(0, 1),
             scratch=tmp_path / "sc", out=tmp_path / "trajectory", name="french")
    (tmp_path / "hidden").mkdir()
    facts = extract_trajectory(tmp_path / "trajectory", model, task, HiddenSettings(rows={"train": 0, "validation": 0}),
                               24, 1, scratch=tmp_path / "s", out=tmp_path / "hidden", name="french")
    assert (facts["sentence"], facts["sentence_token"], facts["layers"], facts["steps"]) == ("first", "<s>", 3,
                                                                                             [0, 6, 12])
    complete(tmp_path / "hidden", Manifest("hidden", "hidden", "french", "0", {}, {}, {}, facts), started=0.0)
    hidden = read_hidden(tmp_path / "hidden")
    starts, ends = hidden.offsets[:-1], hidden.offsets[1:] - 1
    assert (hidden.token_ids[starts] == first).all() and (hidden.token_ids[ends] == last).all()
    assert hidden.special.sum() == 2 * len(starts)
    np.testing.assert_allclose(hidden.tokens(12)[:, starts], hidden.vectors(12)[:, hidden.sentence_rows], atol=1e-6)
    assert np.abs(hidden.vectors(12)[-1] - hidden.vectors(0)[-1]).max() > 0.01
    assert load_encoder(model).config.model_type == facts["model_type"]
