"""python pipelines/corpus.py NAME -- texts for masked-language-model training from local files:
data/NAME/corpus.parquet"""

from finetrace import seeds
from finetrace.config.corpora import CorpusSettings
from finetrace.pipeline.stage import Stage, log, run
from finetrace.store.files import sha256_path


def main(stage: Stage) -> None:
    from finetrace.data.corpus import build_corpus

    settings, folder = stage.settings("corpus", CorpusSettings), stage.layout.task(stage.item)
    path = (stage.layout.root / settings.path).resolve()
    seed = seeds.derive(stage.seed, "corpora")
    manifest = stage.manifest("data", {path: sha256_path(path)} if path.exists() else {}, {"corpora": seed},
                              outs=[folder])
    with stage.output(folder, manifest) as out:
        manifest.facts = build_corpus(stage.item, settings, out, root=stage.layout.root, seed=seed,
                                      held_out_seed=seeds.derive(stage.seed, "held-out facts"))
    facts = manifest.facts
    log.info("%s: %s texts, %s words; left out: %s", stage.label, f"{facts['texts']:,}", f"{facts['words']:,}",
             ", ".join(f"{count:,} {reason}" for reason, count in facts["left_out"].items()) or "none")


if __name__ == "__main__":
    run("corpus", main)
