"""python pipelines/atlas.py -- the comparison across trajectories -> atlas/{index.html, runs/, table.parquet,
metrics.json}"""

from finetrace.atlas.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("atlas", main)
