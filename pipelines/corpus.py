"""python pipelines/corpus.py NAME -- texts for masked-language-model training from local files: data/NAME/corpus.parquet"""

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, log, run
from finetrace.store.files import sha256_file, sha256_folder

ROOMS = ("data/corpus.py", "data/lama.py", "config/corpora.py")


def main(stage: Stage) -> None:
    from finetrace.data.corpus import build_corpus

    settings = stage.pick("corpora", stage.study.corpora)
    path = (stage.layout.root / settings.path).resolve()
    inputs = {path: sha256_folder(path) if path.is_dir() else sha256_file(path)} if path.exists() else {}
    seed = seeds.derive(stage.study.study.seed, "corpora")
    manifest = stage.manifest("data", as_dict(settings) | {"seed": seed}, inputs, {"corpora": seed}, rooms=ROOMS)
    with stage.output(stage.layout.task(stage.item), manifest) as out:
        manifest.facts = build_corpus(stage.item, settings, out, root=stage.layout.root, seed=seed,
                                      held_out_seed=seeds.derive(stage.study.study.seed, "held-out facts"))
    found = manifest.facts
    log.info("%s: %s texts, %s words; left out: %s", stage.label, f"{found['texts']:,}", f"{found['words']:,}",
             ", ".join(f"{count:,} {reason}" for reason, count in found["left_out"].items()) or "none")


if __name__ == "__main__":
    run("corpus", main)
