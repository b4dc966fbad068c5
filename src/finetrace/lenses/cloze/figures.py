"""Figures of the lens cloze: what is known when and in which layer, read-out against read-out, and what is learned and
lost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures import style
from finetrace.lenses.cloze.metrics import BY_FACT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"own": "own head", "trained": "trained head", "tuned": "tuned map"}
_SAID = {"p_at_1": "P@1", "p_at_10": "P@10"}
_NAMED = 8  # checkpoints with a label


def draw(record: Mapping[str, Any]) -> "dict[str, Figure]":
    """Name -> figure; with several corpora of facts, the name ends in the corpus.

    record: place, steps, axis (what they count), words (among which objects are ranked), head (whose it is), readout
    (that is shown by itself) and corpora: corpus -> what `finetrace.lenses.cloze.views.View.drawn` gives.
    """
    steps, place, corpora = record["steps"], record["place"], record["corpora"]
    among = f"{record['words']:,} words; masked-word head: {record['head']}"
    drawn: dict[str, Figure] = {}
    for corpus, view in corpora.items():
        name = "" if len(corpora) == 1 else f"-{corpus.lower().replace('_', '-')}"
        note = f"mean over {'facts' if corpus in BY_FACT else 'relations'}; ranked among {among}"
        common = {"readout": record["readout"], "title": f"{corpus}: {place}", "axis": record["axis"], "note": note}
        drawn[f"precision{name}"] = by_step(steps, view["layers"], view["control"], **common)
        drawn[f"readouts{name}"] = by_readout(view["readouts"], note=note,
                                              title=f"{corpus}: {place}, step {steps[-1]:,}")
        drawn[f"relations{name}"] = relations(steps, view["relations"], **common)
        if view["changes"] is not None:
            drawn[f"changes{name}"] = changes(steps, view["changes"], **common)
    return drawn


@style.styled
def by_step(steps: Sequence[int], layers: Mapping[str, Mapping[int, np.ndarray]], control: Mapping[str, Any] | None, *,
            readout: str, axis: str, title: str | None = None, note: str = "") -> "Figure":
    """P@1 and P@10 against checkpoint, a line per layer; and, with a control, held-out facts beside those that can be
    known.

    layers: {"p_at_1": {layer: (step, 3) value, low, high}, "p_at_10": ...}, layer -1 is "any layer";  control:
    {"known", "held_out": (step, 3), "chance"} of P@1: among words of the right type, or among all, where chance is NaN.
    """
    from matplotlib import colormaps

    figure, axes = style.new_figure(1, 2 if control is None else 3, title=title,
                                    size=(9.0 if control is None else 11.5, 5.2))
    where = np.arange(len(steps))
    for panel, (statistic, curves) in zip(axes[0], layers.items(), strict=False):
        numbers = sorted(layer for layer in curves if layer >= 0)
        tints = colormaps[style.SEQUENTIAL](np.linspace(0.0, 0.92, len(numbers)))
        named = style.thinned([str(layer) for layer in numbers], 24)[1]
        for layer, tint in zip(numbers, tints, strict=True):
            last = layer == numbers[-1]
            panel.plot(where, 100 * curves[layer][:, 0], color=tint, lw=2.4 if last else 1.4,
                       marker="o" if last else None, ms=4, label=str(layer) if str(layer) in named else None)
            if last:
                panel.fill_between(where, *(100 * curves[layer][:, 1:]).T, color=tint, alpha=0.2, lw=0)
        if -1 in curves and np.isfinite(curves[-1][:, 0]).any():
            panel.plot(where, 100 * curves[-1][:, 0], color=style.VERMILION, ls=style.DASHES[1], label="any of 1 on")
        panel.set_title(f"{_SAID[statistic]}, {NAMES[readout]}")
        panel.set_ylim(0, 100 if np.nanmax([v[:, 0] for v in curves.values()]) > 0.5 else None)
        _checkpoints(panel, steps, axis)
    axes[0, 0].set_ylabel("facts (%)")
    axes[0, 0].legend(title="layer", ncols=2, fontsize=8, loc="best")
    if control is not None:
        panel = axes[0, 2]
        for number, (name, label) in enumerate((("known", "facts in the corpus"), ("held_out", "held-out facts"))):
            values = 100 * np.asarray(control[name])
            panel.plot(where, values[:, 0], color=style.colour(number), marker="os"[number], ms=4, label=label)
            panel.fill_between(where, values[:, 1], values[:, 2], color=style.colour(number), alpha=0.15, lw=0)
        if np.isfinite(control["chance"]):
            panel.axhline(100 * control["chance"], color=style.GREY, ls=style.DASHES[2],
                          label=f"chance ({100 * control['chance']:.1f} %)")
            panel.set_title("Control: P@1 among words of the type")
            panel.set_ylim(0, 100)
        else:
            panel.set_title(f"Control: P@1, {NAMES[readout]}")
            panel.set_ylim(bottom=0)
        panel.legend(fontsize=8, loc="upper left")
        _checkpoints(panel, steps, axis)
    style.panel_letters(axes)
    style.footnote(figure, "checkpoints are evenly spaced; bands: 95 % interval of the last "
                           f"layer{'; ' + note if note else ''}")
    return figure


@style.styled
def by_readout(curves: Mapping[str, Mapping[str, np.ndarray]], *, title: str | None = None, note: str = "") -> "Figure":
    """P@1 and P@10 against layer, a line per read-out, with 95 % intervals. curves: {statistic: {readout: (layer,
    3)}}."""
    figure, axes = style.new_figure(1, 2, title=title, size=(9.0, 4.8))
    for panel, (statistic, readouts) in zip(axes[0], curves.items(), strict=False):
        for number, (name, values) in enumerate(readouts.items()):
            values = 100 * np.asarray(values)
            layers = np.arange(len(values))
            panel.plot(layers, values[:, 0], color=style.colour(number), marker="os^"[number % 3], ms=5.5 - number,
                       ls=style.DASHES[number % len(style.DASHES)], label=NAMES[name])
            panel.fill_between(layers, values[:, 1], values[:, 2], color=style.colour(number), alpha=0.12, lw=0)
        panel.set_title(_SAID[statistic])
        panel.set_xlabel("layer (0: embeddings)")
        style.count_axis(panel.xaxis)
        panel.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("facts (%)")
    axes[0, 0].legend(loc="upper left")
    style.panel_letters(axes)
    style.footnote(figure, f"bands: 95 % interval over facts{'; ' + note if note else ''}")
    return figure


@style.styled
def relations(steps: Sequence[int], shares: Mapping[str, np.ndarray], *, readout: str, axis: str,
              title: str | None = None, note: str = "") -> "Figure":
    """P@1 by layer (up) and checkpoint (right), a heat map per relation, all on the scale 0 to 100 %.

    shares: {relation: (layer, step)}, at most twelve.
    """
    columns = min(len(shares), 4 if len(shares) > 4 else 3)
    rows = -(-len(shares) // columns)
    figure, axes = style.new_figure(rows, columns, title=title, size=(max(6.0, 2.6 * columns), 1.6 + 2.1 * rows),
                                    sharex=True, sharey=True)
    image: Any = None
    for panel in axes.flat[len(shares):]:
        panel.set_visible(False)
    for number, (name, values) in enumerate(shares.items()):
        panel = axes.flat[number]
        image = panel.imshow(100 * np.asarray(values), origin="lower", aspect="auto", cmap=style.SEQUENTIAL, vmin=0,
                             vmax=100)
        panel.set_title(style.short(name, 24), fontsize=9.5)
        panel.grid(False)
        panel.yaxis.set_major_locator(_whole_ticks())
        _checkpoints(panel, steps, axis if number >= len(shares) - columns else "", named=4, line=False)
        panel.tick_params(labelbottom=number >= len(shares) - columns)
    for panel in axes[:, 0]:
        panel.set_ylabel("layer")
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03)
    bar.set_label(f"P@1 (%), {NAMES[readout]}")
    bar.ax.spines[:].set_visible(False)
    style.footnote(figure, f"in brackets: facts; checkpoints are evenly spaced{'; ' + note if note else ''}")
    return figure


@style.styled
def changes(steps: Sequence[int], shares: Mapping[str, np.ndarray], *, readout: str, axis: str,
            title: str | None = None, note: str = "") -> "Figure":
    """Facts learned (up) on those kept, and lost (down), from each checkpoint to the next and from the first to the
    last.

    shares: {"learned", "kept", "lost": (step,)} shares of all facts: per checkpoint from the second on, then first to
    last.
    """
    figure, axes = style.new_figure(title=title, size=(9.0, 5.0))
    panel = axes[0, 0]
    count = len(steps) - 1
    where = np.concatenate([np.arange(count), [count + 0.6]])
    kept, learned, lost = (100 * np.asarray(shares[name]) for name in ("kept", "learned", "lost"))
    panel.bar(where, kept, color=style.LIGHT_GREY, label="kept")
    panel.bar(where, learned, bottom=kept, color=style.BLUE, label="learned")
    panel.bar(where, -lost, color=style.VERMILION, label="lost")
    panel.axhline(0, color=style.BLACK, lw=0.8)
    panel.axvline(count - 0.2, color=style.GREY, lw=1, ls=style.DASHES[2])
    ticks = np.unique(np.linspace(0, max(0, count - 1), max(1, min(count, 7))).round().astype(int))
    panel.set_xticks([*ticks, where[-1]], [*(f"{steps[i]:,}\nto {steps[i + 1]:,}" for i in ticks), "first\nto last"],
                     fontsize=8)
    panel.set_xlabel(axis)
    panel.set_ylabel("facts (%)")
    panel.set_title(f"Facts known by rank 1, last layer, {NAMES[readout]}")
    panel.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
    panel.grid(axis="x", visible=False)
    panel.set_ylim(-1.1 * np.nanmax(lost, initial=1.0), 1.05 * np.nanmax([kept, kept + learned], initial=1.0))
    panel.set_xlim(-0.8, where[-1] + 0.8)
    style.footnote(figure, note)
    return figure


def _checkpoints(panel: "Axes", steps: Sequence[int], label: str, named: int = _NAMED, line: bool = True) -> None:
    """Evenly spaced checkpoints on the x axis, some of them named."""
    ticks = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), named)).round().astype(int))
    turned: dict[str, Any] = {"rotation": 35, "ha": "right"} if line else {}
    panel.set_xticks(ticks, [f"{steps[i]:,}" for i in ticks], fontsize=8, **turned)
    if line:
        panel.set_xlim(-0.3, len(steps) - 0.7)
    panel.set_xlabel(label)


def _whole_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, integer=True)
