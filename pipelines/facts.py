"""python pipelines/facts.py NAME -- cloze questions, from the micro world or from files like LAMA's: data/NAME/facts.parquet"""

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.config.facts import FactsSettings
from finetrace.stage import Stage, log, run
from finetrace.store.files import sha256_folder

ROOMS = ("data/facts.py", "data/lama.py", "config/facts.py")


def main(stage: Stage) -> None:
    from finetrace.data.facts import file_facts, world_facts, write_facts

    study, layout = stage.study, stage.layout
    settings = stage.pick("facts and fact_files", {**study.facts, **study.fact_files})
    folder, inputs = layout.world, {}
    if isinstance(settings, FactsSettings):
        inputs = {folder: folder}
    elif (folder := (layout.root / settings.path).resolve()).is_dir():
        inputs = {folder: sha256_folder(folder)}
    seed = seeds.derive(study.study.seed, "facts")
    manifest = stage.manifest("data", as_dict(settings) | {"seed": seed}, inputs, {"facts": seed}, rooms=ROOMS)
    if isinstance(settings, FactsSettings):
        facts, counts = world_facts(layout.world, settings)
    else:
        facts, counts = file_facts(settings, layout.root, seed, seeds.derive(study.study.seed, "held-out facts"))
    with stage.output(layout.task(stage.item), manifest) as out:
        write_facts(out / "facts.parquet", facts)
        manifest.facts = counts
    log.info("%s: %d facts", stage.label, len(facts))


if __name__ == "__main__":
    run("facts", main)
