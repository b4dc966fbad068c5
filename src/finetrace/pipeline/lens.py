"""How a lens writes its folder, in two halves: measure, and draw from the stored measurement.

Stages without figures do not import this module, so that a change of how figures look concerns lenses only.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetrace.pipeline.stage import Stage
from finetrace.store.files import atomic_folder
from finetrace.store.kept import keep_files, restore_files
from finetrace.store.manifest import Manifest, complete, make_key
from finetrace.store.record import read_record, write_record

log = logging.getLogger("finetrace")
Record = dict[str, Any]
"""What the figures of a lens are drawn from: names -> numbers, texts, arrays, dataclasses, and lists and dicts of
these."""


def write_lens(
    stage: Stage,
    folder: Path,
    manifest: Manifest,
    measure: Callable[[Path], Record],
    draw: Callable[[Record], Mapping[str, Any]],
    types: Sequence[type] = (),
) -> None:
    """Write a lens's folder in two halves: what is measured, and figures that are drawn from the stored measurement
    alone.

    measure: writes tables and metrics into a folder, puts the manifest's facts, and returns what the figures need;
    draw: that record -> name -> figure;  types: dataclasses that stand in the record.
    A measurement with the same key that is kept from before is not made again: a changed figure only draws.
    """
    measured_folder = stage.layout.measured(stage.stage, stage.item)
    with atomic_folder(folder) as out:
        if restore_files(measured_folder, manifest.key, out):
            log.info("%s: measured before; the figures are drawn again", stage.label)
        else:
            write_record(out / "measured.npz", measure(out))
            stage.complete(out, manifest)
            keep_files(out, measured_folder)
        write_drawn(stage, out, manifest, draw(read_record(out / "measured.npz", types)))
    log.info("%s: wrote %s", stage.label, stage.layout.relative(folder))


def write_drawn(stage: Stage, folder: Path, manifest: Manifest, figures: Mapping[str, Any]) -> None:
    """Write `folder/figures` with a manifest of its own, so that nothing that reads the folder depends on how figures
    look.

    manifest: of the folder, of a kind in `DRAWN`;  figures: name -> figure.
    """
    write_figures(folder / "figures", figures)
    drawn = Manifest(
        kind="figures",
        stage=stage.stage,
        name=stage.item,
        settings={},
        inputs={},
        seeds={},
        key=make_key(f"figures of {manifest.key}", {}, {}, stage.code["draw"]),
        code=stage.code["draw"],
    )
    complete(folder / "figures", drawn, started=stage.started)


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write `folder/NAME.png` of each figure."""
    from finetrace.figures.style import to_png

    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(to_png(figure))
