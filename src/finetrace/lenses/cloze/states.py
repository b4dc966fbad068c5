"""One checkpoint through the lens cloze: maps of its layers from cached states, then ranks of all facts from one
forward pass."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.config.base import as_dict
from finetrace.inference.masked import MaskedTexts, cache_states, masked_states
from finetrace.models.precision import bf16_of
from finetrace.models.rows import Collator
from finetrace.store.arrays import read_array

if TYPE_CHECKING:
    from finetrace.inference.prompts import Prompts
    from finetrace.lenses.cloze.fitting import Fitted
    from finetrace.lenses.cloze.ranking import Ranks
    from finetrace.lenses.cloze.settings import ClozeSettings
    from finetrace.models.masked_head import MaskedHead


def fit_readouts(encoder: Any, head: "MaskedHead", texts: dict[str, MaskedTexts], readouts: Sequence[str],
                 settings: "ClozeSettings", collator: Collator, *, scratch: Path, seed: int,
                 tell: Callable[[str], None] = lambda readout: None) -> "dict[str, Fitted]":
    """The read-outs among trained and tuned, for all layers of a checkpoint.

    encoder: in evaluation mode, it is not changed;  texts: train and held_out;  scratch: folder for the cached states
    (layer, position, dim), removed afterwards;  tell: called after each training step with the read-out.
    """
    from finetrace.lenses.cloze.fitting import Cached, Recipe
    from finetrace.lenses.cloze.readouts import train_heads, train_maps

    scratch.mkdir(parents=True, exist_ok=True)
    data: dict[str, Cached] = {}
    fitted: dict[str, Fitted] = {}
    device = next(encoder.parameters()).device
    try:
        for name, part in texts.items():
            path = scratch / f"{name}.npy"
            order = cache_states(encoder, part, path, collator, batch_tokens=settings.batch_tokens,
                                 dtype=settings.dtype, bf16=bf16_of(encoder, settings.precision))
            data[name] = Cached(_in_memory(read_array(path), device, settings.memory_mib), part.targets[order])
        last = len(data["train"].states) - 1
        common: dict[str, Any] = {"seed": seeds.derive(seed, "heads"), "memory_bytes": settings.memory_mib * 2**20}
        for readout in [r for r in readouts if r != "own"]:
            options = as_dict(settings.heads if readout == "trained" else settings.tuned)
            recipe = Recipe(**{k: v for k, v in options.items() if k in Recipe.__dataclass_fields__})
            common["on_step"] = lambda _, readout=readout: tell(readout)
            if readout == "trained":
                fitted[readout] = train_heads(head, list(range(last + 1)), data["train"], data["held_out"], recipe,
                                              init=settings.heads.init, **common)
            else:
                fitted[readout] = train_maps(head, list(range(last)), last, data["train"], data["held_out"], recipe,
                                             **common)
    finally:
        data.clear()
        shutil.rmtree(scratch, ignore_errors=True)
    return fitted


def _in_memory(states: np.ndarray, device: Any, memory_mib: int) -> Any:
    """The cache on the device where it fits the budget; else it stays mapped from the disk."""
    import torch

    return states if states.nbytes > memory_mib * 2**20 else torch.from_numpy(np.array(states)).to(device)


def rank_facts(encoder: Any, head: "MaskedHead", prompts: "Prompts", vocabulary: np.ndarray,
               fitted: "dict[str, Fitted]", readouts: Sequence[str], settings: "ClozeSettings", collator: Collator, *,
               tell: Callable[[int], None] = lambda count: None) -> "dict[str, Ranks]":
    """Read-out -> ranks (layer, fact), facts in the order of the prompts.

    vocabulary: (word,) ids among which objects are ranked;  fitted: of `fit_readouts`;  tell: called with numbers of
    facts done.
    """
    import torch

    from finetrace.lenses.cloze.ranking import Candidates, Ranker, Ranks
    from finetrace.lenses.cloze.readouts import inner_states

    ranker = Ranker(head.decoder, head.bias, vocabulary, top=settings.top, memory_bytes=settings.memory_mib * 2**20)
    candidates = Candidates.of_facts(prompts.candidates)
    parts: dict[str, list[Ranks]] = {readout: [] for readout in readouts}
    order = []
    for numbers, states in masked_states(encoder, prompts.rows, np.arange(len(prompts) + 1), prompts.mask_at, collator,
                                         settings.batch_tokens, bf16_of(encoder, settings.precision)):
        with torch.no_grad():
            for readout, ranked in parts.items():
                inner = inner_states(readout, head, fitted.get(readout), states)
                ranked.append(ranker(inner, prompts.gold[numbers], candidates.take(numbers)))
        order.append(numbers)
        tell(len(numbers))
    back = np.argsort(np.concatenate(order))
    return {readout: Ranks(*(np.concatenate([getattr(ranks, name) for ranks in ranked], axis=1)[:, back]
                             for name in Ranks.__dataclass_fields__)) for readout, ranked in parts.items()}
