"""python pipelines/facts.py NAME -- cloze questions, from the micro world or from files like LAMA's:
data/NAME/facts.parquet"""

from finetrace import seeds
from finetrace.config.facts import FactFilesSettings, FactsSettings
from finetrace.pipeline.stage import Stage, log, run
from finetrace.store.files import sha256_folder


def main(stage: Stage) -> None:
    from finetrace.data.facts import file_facts, world_facts, write_facts

    layout, folder = stage.layout, stage.layout.task(stage.item)
    seed = seeds.derive(stage.seed, "facts")
    if "facts" in stage.asked:
        manifest = stage.manifest("data", {layout.world: layout.world}, {"facts": seed}, outs=[folder])
        facts, counts = world_facts(layout.world, stage.settings("facts", FactsSettings))
    else:
        settings = stage.settings("fact_files", FactFilesSettings)
        path = (layout.root / settings.path).resolve()
        manifest = stage.manifest("data", {path: sha256_folder(path)} if path.is_dir() else {}, {"facts": seed},
                                  outs=[folder])
        facts, counts = file_facts(settings, layout.root, seed, seeds.derive(stage.seed, "held-out facts"))
    with stage.output(folder, manifest) as out:
        write_facts(out / "facts.parquet", facts)
        manifest.facts = counts
    log.info("%s: %d facts", stage.label, len(facts))


if __name__ == "__main__":
    run("facts", main)
