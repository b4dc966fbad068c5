"""At which checkpoints the lenses of gradients, kernel and influence, look."""

from pathlib import Path


def kept_checkpoints(trajectory: Path, wanted: str | list[int], lens: str) -> dict[int, Path]:
    """Step -> folder, ascending; listed steps beyond the last are left out, the ends always in.

    wanted: `all`, `ends` or steps, as in the setting `checkpoints` of the lens. Raises FinetraceError for a step that
    was not kept.
    """
    from finetrace.models.timeline import chosen_steps
    from finetrace.store.checkpoints import list_weights

    recorded = list_weights(trajectory / "checkpoints")
    chosen = chosen_steps(list(recorded), wanted, trajectory, f"params.yaml: {lens}.checkpoints")
    return {step: recorded[step] for step in chosen}
