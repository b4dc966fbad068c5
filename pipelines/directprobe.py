"""python pipelines/directprobe.py NAME -- the hull probe on inputs of the original programs -> directprobe/NAME/"""

from finetrace.lenses.directprobe.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("directprobe", main)
