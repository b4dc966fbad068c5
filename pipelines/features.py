"""python pipelines/features.py TRAJECTORY -- how far features move and how the head grows -> .../sSEED/features/"""

from finetrace.lenses.features.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("features", main)
