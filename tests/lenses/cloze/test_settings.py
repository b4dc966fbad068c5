"""Settings of the lens cloze: defaults, unknown and contradictory keys with the fix in the message."""

import pytest

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.cloze.settings import ClozeSettings


def read(value):
    return parse(ClozeSettings, value, "params.yaml: cloze")


def test_defaults():
    found = read({})
    assert found.readouts == ("own", "trained", "tuned") and found.vocabulary == "common" and found.top == 5
    assert (found.heads.init, found.heads.min_delta, found.heads.patience) == ("pretrained", 0.01, 15)
    assert found.checkpoints == found.heads_checkpoints == "all"
    assert (found.facts, found.corpus) == ("", "world")


def test_some_keys_of_the_parts():
    found = read({"heads": {"steps": 60_000, "learning_rate": 5e-5}, "tuned": {"steps": 10},
                  "heads_checkpoints": [0, 60], "readouts": ["own"]})
    assert found.heads.steps == 60_000 and found.heads.batch == 256 and found.tuned.steps == 10
    assert found.heads_checkpoints == [0, 60] and found.readouts == ("own",)


@pytest.mark.parametrize(("value", "message"), [
    ({"readout": ["own"]}, r"unknown key 'readout'; did you mean 'readouts'"),
    ({"heads": {"step": 3}}, r"unknown key 'heads\.step'; did you mean 'steps'"),
    ({"readouts": []}, r"readouts: \[\] must name each of own, trained, tuned at most once"),
    ({"readouts": ["own", "own"]}, r"at most once"),
    ({"vocabulary": ""}, r"vocabulary: write common, full or a file"),
    ({"batch_tokens": 4}, r"batch_tokens: 4 is less than 16"),
    ({"heads_checkpoints": [-1]}, r"heads_checkpoints: \[-1\] is not a list of steps"),
    ({"heads": {"texts": 1}}, r"heads: texts: 1 cannot be parted into training and choice; 0 takes all"),
    ({"heads": {"held_out": 1.0}}, r"held_out: 1\.0 is not between 0 and 1"),
    ({"tuned": {"learning_rate": 0}}, r"tuned: learning_rate: 0\.0 is not positive"),
    ({"tuned": {"warmup": 1}}, r"warmup: 1\.0 is not in \[0, 1\)"),
])
def test_what_is_rejected(value, message):
    with pytest.raises(FinetraceError, match=message):
        read(value)
