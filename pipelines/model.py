"""python pipelines/model.py MODEL -- a hub model or a local folder -> models/MODEL/"""

from finetrace import seeds
from finetrace.config.models import FolderModelSettings, HubModelSettings
from finetrace.pipeline.stage import Stage, run
from finetrace.store.files import sha256_folder


def main(stage: Stage) -> None:
    from finetrace.models.fetch import describe, fetch_folder, fetch_hub, randomise

    name, folder = stage.item, stage.layout.model(stage.item)
    seed = seeds.derive(stage.seed, "random weights", name)
    entry: HubModelSettings | FolderModelSettings
    if "path" in stage.asked["model"]:
        entry = stage.settings("model", FolderModelSettings)
        path = (stage.layout.root / entry.path).resolve()
        manifest = stage.manifest("model", {path: sha256_folder(path)} if path.is_dir() else {}, {"weights": seed},
                                  outs=[folder])
    else:
        entry = stage.settings("model", HubModelSettings)
        manifest = stage.manifest("model", {}, {"weights": seed}, outs=[folder])
    with stage.output(folder, manifest) as out:
        if isinstance(entry, FolderModelSettings):
            facts = fetch_folder(name, path, out)
        else:
            facts = fetch_hub(name, entry.id, entry.revision, out)
        if entry.weights == "random":
            randomise(out, seed)
        manifest.facts = {**facts, **describe(out)}


if __name__ == "__main__":
    run("model", main)
