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
    short_names = {kind: without_common_words(names[kind]) for kind in kinds}
    varying = sorted((kind for kind in kinds if len(names[kind]) > 1),
                     key=lambda k: max(map(len, short_names[k].values())))
    constant = [kind for kind in kinds if len(names[kind]) == 1]

    def join_names() -> dict[str, str]:
        return {Cell(run.model, run.task, run.method).key: " ".join([
            *(short_names[kind][getattr(run, kind)] for kind in varying),
            *(getattr(run, kind) for kind in constant)]) for run in runs}

    shown = join_names()
    if len({name[:WIDTH - _PREFIX] for name in shown.values()}) < len(shown):
        widths = {kind: max(map(len, short_names[kind].values())) for kind in varying}
        while sum(widths.values()) + len(widths) - 1 > WIDTH - _PREFIX:
            widths[max(widths, key=lambda kind: widths[kind])] -= 1
        short_names |= {kind: _shortened(short_names[kind], widths[kind]) for kind in varying}
        shown = join_names()
    return shown


def place_names(masked: Sequence[str], adapted: Sequence[str]) -> dict[str, str]:
    """Key of a masked-word training -> how MLflow's list shows it: by its key, or where these begin alike by what
    tells it from the others, e.g. "pretrain mpnet-base-v2". masked: names of pre-trainings and series."""
    shown: dict[str, str] = {}
    for kind, names in (("pretrain", masked), ("adapt", adapted)):
        keys = {name: f"{name}_{kind}" for name in names}
        if len({key[:WIDTH] for key in keys.values()}) < len(keys):
            short_names = _shortened(without_common_words(sorted(names)), WIDTH - len(kind) - 1)
            shown |= {keys[name]: f"{kind} {short_names[name]}" for name in names}
    return shown


def without_common_words(names: Sequence[str]) -> dict[str, str]:
    """Name -> name without the words, each with its dash, with which all of them begin."""
    word_lists = [name.split("-") for name in names]
    shortest = min((len(words) for words in word_lists), default=0)
    common_count = next((place for place in range(shortest)
                         if place == shortest - 1 or len({words[place] for words in word_lists}) > 1), 0)
    return {name: "-".join(words[common_count:]) for name, words in zip(names, word_lists, strict=True)}


def _shortened(names: Mapping[str, str], width: int) -> dict[str, str]:
    """Name -> short name of at most `width` characters, all different: long ones by the words that no other has, as
    many as there is room for, and by a number where that tells too little."""
    word_counts = Counter(word for name in names.values() for word in set(name.split("-")))
    fitted = {name: text for name, text in names.items() if len(text) <= width}
    for number, (name, text) in enumerate(names.items(), 1):
        if name not in fitted:
            own_words = [word for word in text.split("-") if word_counts[word] == 1]
            while len(own_words) > 1 and len("-".join(own_words)) > width:
                own_words.pop()
            short_name = ("-".join(own_words) or text)[:width]
            fitted[name] = (short_name if short_name not in fitted.values()
                            else f"{short_name[:width - len(str(number))]}{number}")
    return fitted
