"""The figures of the stage comparison, from its stored measurement."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetrace.lenses.similarity import summary
from finetrace.lenses.similarity.figures import BARS, curve, heat_maps, lattice, measures, named
from finetrace.longtable import LongTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage measured, as name -> figure.

    record: name; first, second, the trajectories; pairs, checkpoints that are compared (step of the first, of the
    second); counts {representation: examples}; measures; table, the columns of table.parquet.
    """
    name, compared, pairs = record["name"], record["measures"], record["pairs"]
    table = LongTable.of_columns(record["table"])
    main = summary.main_measure(compared)
    over_layers, over_steps, sides = [], [], {}
    for kind, label in named(record["counts"]).items():
        kind_table = table.select(representation=kind)
        row = []
        for when, (other_step, step) in {"first checkpoints": pairs[0], "last checkpoints": pairs[-1]}.items():
            ends = kind_table.select(step=step, other_step=other_step)
            row.append(lattice(f"{label}, {when}", ends.select(statistic=main), "other_layer"))
            sides[f"{label}, {when}"] = {measure: curve(summary.at_layers(ends, statistic=measure))
                                         for measure in compared}
        over_layers.append(row)
        over_steps.append(lattice(label, summary.at_layers(kind_table, statistic=main), "step"))
    who, when, depth = f"first: {record['first']}; second: {record['second']}", "", ""
    bars = BARS if "cka" in compared else ""
    if pairs[-1][0] != pairs[-1][1]:
        first_step, second_step = pairs[-1]
        when = f"\nthe last column compares checkpoint {first_step:,} of the first with {second_step:,} of the second"
    if table.frame["layer"].max() != table.frame["other_layer"].max():
        depth = "\neach layer of the second is compared with the layer of the first at the same share of the depth"
    return {
        "layers": heat_maps(over_layers, main, "layer of the first", "layer of the second", note=who,
                            title=f"Layers of two trajectories: {name}"),
        "measures": measures(sides, note=who + bars + depth, title=f"Similarity of two trajectories: {name}"),
        "steps": heat_maps([over_steps], main, "optimiser step of the checkpoints", "layer of the second",
                           note=who + when + depth, title=f"Similarity of two trajectories over training: {name}"),
    }
