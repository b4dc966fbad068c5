"""python pipelines/geometry.py TRAJECTORY -- cosines, traces, ranks, isotropy, class cones -> .../sSEED/geometry/"""

from finetrace.lenses.geometry.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("geometry", main)
