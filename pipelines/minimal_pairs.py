"""python pipelines/minimal_pairs.py NAME -- minimal pairs of the micro world, a hub data set or files:
data/NAME/pairs.parquet"""

from finetrace import seeds
from finetrace.config.minimal_pairs import MinimalPairFilesSettings, MinimalPairsSettings
from finetrace.config.world import WorldSettings
from finetrace.pipeline.stage import Stage, log, run
from finetrace.store.files import sha256_path


def main(stage: Stage) -> None:
    from finetrace.data.minimal_pairs import chosen_pairs, facts_of, file_pairs, hub_pairs, write_pairs

    layout, folder = stage.layout, stage.layout.task(stage.item)
    seed = seeds.derive(stage.seed, "minimal pairs")
    if "minimal_pair_files" in stage.asked:
        files = stage.settings("minimal_pair_files", MinimalPairFilesSettings)
        path = (layout.root / files.path).resolve()
        manifest = stage.manifest("data", {path: sha256_path(path)} if path.exists() else {}, {"pairs": seed},
                                  outs=[folder])
        pairs = file_pairs(stage.item, files, layout.root, seed)
    else:
        settings = stage.settings("minimal_pairs", MinimalPairsSettings)
        manifest = stage.manifest("data", {}, {"pairs": seed}, outs=[folder])
        if settings.source == "hub":
            pairs = hub_pairs(stage.item, settings, seed)
        else:
            from finetrace.data.world import build_world
            from finetrace.data.world.pairs import PAIRS, world_pairs

            world = build_world(stage.settings("world", WorldSettings), seeds.derive(stage.seed, "world"))
            world_made = world_pairs(world, seed, settings.max_pairs or PAIRS)
            pairs = chosen_pairs(stage.item, world_made, settings, seed)
    with stage.output(folder, manifest) as out:
        write_pairs(out / "pairs.parquet", pairs)
        manifest.facts = facts_of(pairs)
    log.info("%s: %s pairs of %d phenomena", stage.label, f"{len(pairs):,}", len(manifest.facts["phenomena"]))


if __name__ == "__main__":
    run("minimal-pairs", main)
