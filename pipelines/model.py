"""python pipelines/model.py MODEL -- a hub model or a local folder -> models/MODEL/"""

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, run
from finetrace.store.files import sha256_folder


def main(stage: Stage) -> None:
    from finetrace.models.fetch import describe, fetch_folder, fetch_hub, randomise

    study, name = stage.study, stage.item
    entry = stage.pick("models and model_folders", {**study.models, **study.model_folders})
    local = name in study.model_folders
    inputs = {}
    if local:
        path = (stage.layout.root / entry.path).resolve()
        inputs = {path: sha256_folder(path)} if path.is_dir() else {}
    seed = seeds.derive(study.study.seed, "random weights", name)
    manifest = stage.manifest("model", {"model": as_dict(entry)}, inputs, {"weights": seed}, rooms=("models/fetch.py",))
    with stage.output(stage.layout.model(name), manifest) as out:
        facts = fetch_folder(name, path, out) if local else fetch_hub(name, entry.id, entry.revision, out)
        if entry.weights == "random":
            randomise(out, seed)
        manifest.facts = {**facts, **describe(out)}


if __name__ == "__main__":
    run("model", main)
