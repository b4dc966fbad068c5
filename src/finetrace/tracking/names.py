"""Names that tell runs apart at a glance: MLflow's list of runs shows about 24 characters of a name."""

from collections import Counter
from collections.abc import Mapping, Sequence

from finetrace.study.study import Cell, Run

WIDTH = 24
"""Characters that MLflow shows."""
_PREFIX = len("mean ")  # what stands before the names: s1, mean, tune


def shown_names(runs: Sequence[Run]) -> dict[str, str]:
    """Key of a fine-tuning -> how MLflow's list shows it, e.g. "s1 a lp-lora sentiment", all of them different."""
    cells = cell_names(runs)
    return {run.key: f"s{run.seed} {cells[run.cell.key]}" for run in runs}


def cell_names(runs: Sequence[Cell]) -> dict[str, str]:
    """Key of a cell -> what tells it from the others in MLflow's list, e.g. "a lp-lora sentiment".

    What differs between the cells comes first, short names before long ones, without the words with which all names of
    a kind begin. Where that is too long to tell them apart, the longest names are shortened to what is their own.
    """
    kinds = ("model", "task", "method")
    names = {kind: sorted({getattr(run, kind) for run in runs}) for kind in kinds}
    short = {kind: without_common_words(names[kind]) for kind in kinds}
    varying = sorted((kind for kind in kinds if len(names[kind]) > 1), key=lambda k: max(map(len, short[k].values())))
    constant = [kind for kind in kinds if len(names[kind]) == 1]

    def named() -> dict[str, str]:
        return {Cell(run.model, run.task, run.method).key: " ".join([
            *(short[kind][getattr(run, kind)] for kind in varying),
            *(getattr(run, kind) for kind in constant)]) for run in runs}

    found = named()
    if len({name[:WIDTH - _PREFIX] for name in found.values()}) < len(found):
        widths = {kind: max(map(len, short[kind].values())) for kind in varying}
        while sum(widths.values()) + len(widths) - 1 > WIDTH - _PREFIX:
            widths[max(widths, key=lambda kind: widths[kind])] -= 1
        short |= {kind: _within(short[kind], widths[kind]) for kind in varying}
        found = named()
    return found


def place_names(masked: Sequence[str], adapted: Sequence[str]) -> dict[str, str]:
    """Key of a masked-word training -> how MLflow's list shows it: by its key, or where these begin alike by what
    tells it from the others, e.g. "pretrain mpnet-base-v2". masked: names of pre-trainings and series."""
    found: dict[str, str] = {}
    for kind, names in (("pretrain", masked), ("adapt", adapted)):
        keys = {name: f"{name}_{kind}" for name in names}
        if len({key[:WIDTH] for key in keys.values()}) < len(keys):
            short = _within(without_common_words(sorted(names)), WIDTH - len(kind) - 1)
            found |= {keys[name]: f"{kind} {short[name]}" for name in names}
    return found


def without_common_words(names: Sequence[str]) -> dict[str, str]:
    """Name -> name without the words, each with its dash, with which all of them begin."""
    split = [name.split("-") for name in names]
    shortest = min((len(words) for words in split), default=0)
    common = next((at for at in range(shortest) if at == shortest - 1 or len({words[at] for words in split}) > 1), 0)
    return {name: "-".join(words[common:]) for name, words in zip(names, split, strict=True)}


def _within(names: Mapping[str, str], width: int) -> dict[str, str]:
    """Name -> short name of at most `width` characters, all different: long ones by the words that no other has, as
    many as there is room for, and by a number where that tells too little."""
    shared = Counter(word for name in names.values() for word in set(name.split("-")))
    found = {name: text for name, text in names.items() if len(text) <= width}
    for number, (name, text) in enumerate(names.items(), 1):
        if name not in found:
            own = [word for word in text.split("-") if shared[word] == 1]
            while len(own) > 1 and len("-".join(own)) > width:
                own.pop()
            cut = ("-".join(own) or text)[:width]
            found[name] = cut if cut not in found.values() else f"{cut[:width - len(str(number))]}{number}"
    return found
