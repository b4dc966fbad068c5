"""python pipelines/cross_task.py NAME -- what training on one task did
to the classes of another -> cross-tasks/NAME/"""

from finetrace.lenses.cross_task.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("cross-task", main)
