"""python pipelines/world.py -- the micro world: corpus with gold annotation, facts, tokenizer -> data/world/"""

import json

from finetrace import seeds
from finetrace.config.world import WorldSettings
from finetrace.pipeline.stage import Stage, run
from finetrace.store.tables import write_table


def main(stage: Stage) -> None:
    from finetrace.data.world import build_tokenizer, build_world

    seed, folder = seeds.derive(stage.seed, "world"), stage.layout.world
    manifest = stage.manifest("world", {}, {"world": seed}, outs=[folder])
    world = build_world(stage.settings("world", WorldSettings), seed)
    with stage.output(folder, manifest) as out:
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
