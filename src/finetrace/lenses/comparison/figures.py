"""The figures of the stage comparison, from its stored measurement."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetrace.lenses.similarity import summary
from finetrace.lenses.similarity.figures import BARS, Lattice, curve, heat_maps, measures, named

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage measured, as name -> figure.

    record: name; first, second, the trajectories; pairs, checkpoints that are compared (step of the first, of the
    second); counts {representation: examples}; measures; table, the columns of table.parquet.
    """
    name, table, compared, pairs = record["name"], record["table"], record["measures"], record["pairs"]
    main = summary.main_measure(compared)
    over_layers, over_steps, sides = [], [], {}
    for kind, label in named(record["counts"]).items():
        here = summary.select(table, representation=kind)
        row = []
        for when, (other_step, step) in {"first checkpoints": pairs[0], "last checkpoints": pairs[-1]}.items():
            ends = summary.select(here, step=step, other_step=other_step)
            across = summary.grid(summary.select(ends, statistic=main), "layer", "other_layer")
            row.append(Lattice(f"{label}, {when}", *across))
            sides[f"{label}, {when}"] = {one: curve(summary.at_layers(ends, statistic=one)) for one in compared}
        over_layers.append(row)
        over_steps.append(Lattice(label, *summary.grid(summary.at_layers(here, statistic=main), "layer", "step")))
    who, when, depth = f"first: {record['first']}; second: {record['second']}", "", ""
    bars = BARS if "cka" in compared else ""
    if pairs[-1][0] != pairs[-1][1]:
        of_first, of_second = pairs[-1]
        when = f"\nthe last column compares checkpoint {of_first:,} of the first with {of_second:,} of the second"
    if table["layer"].max() != table["other_layer"].max():
        depth = "\neach layer of the second is compared with the layer of the first at the same share of the depth"
    return {
        "layers": heat_maps(over_layers, main, "layer of the first", "layer of the second", note=who,
                            title=f"Layers of two trajectories: {name}"),
        "measures": measures(sides, note=who + bars + depth, title=f"Similarity of two trajectories: {name}"),
        "steps": heat_maps([over_steps], main, "optimiser step of the checkpoints", "layer of the second",
                           note=who + when + depth, title=f"Similarity of two trajectories over training: {name}"),
    }
