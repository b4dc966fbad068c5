"""python pipelines/world.py -- the micro world: corpus with gold annotation, facts, tokenizer -> data/world/"""

import json

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.stage import Stage, run
from finetrace.store.tables import write_table


def main(stage: Stage) -> None:
    from finetrace.data.world import build_tokenizer, build_world

    settings = {"world": as_dict(stage.study.world), "seed": stage.study.study.seed}
    seed = seeds.derive(stage.study.study.seed, "world")
    manifest = stage.manifest("world", settings, {}, {"world": seed}, rooms=("data/world",))
    world = build_world(stage.study.world, seed)
    with stage.output(stage.layout.world, manifest) as out:
        rows = world.corpus
        write_table(out / "corpus.parquet", {
            "text": [s.text for s in rows], "kind": [s.kind for s in rows], "words": [list(s.words) for s in rows],
            "pos": [list(s.pos) for s in rows], "heads": [list(s.heads) for s in rows],
            "deprels": [list(s.deprels) for s in rows],
            **{name: [json.dumps(getattr(s, name)) for s in rows]
               for name in ("constituents", "entities", "coref", "roles")},
            "fact_id": [s.fact_id for s in rows]})
        write_table(out / "facts.parquet", {name: [getattr(f, name) for f in world.facts]
                                            for name in ("fact_id", "relation", "subject", "object", "held_out")})
        relations = {r: {"templates": list(world.templates[r]), "candidates": list(world.candidates[r])}
                     for r in sorted(world.templates)}
        (out / "relations.json").write_text(json.dumps(relations, indent=1, sort_keys=True))
        build_tokenizer(world).save_pretrained(out / "tokenizer")
        manifest.facts = {"sentences": len(rows), "facts": len(world.facts), "words": len(world.vocabulary),
                          "held_out_facts": sum(f.held_out for f in world.facts)}


if __name__ == "__main__":
    run("world", main)
