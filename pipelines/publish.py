"""python pipelines/publish.py -- everything that the study has made becomes runs in MLflow -> mlruns/published.json"""

from finetrace.pipeline.stage import Stage, run


def main(stage: Stage) -> None:
    from finetrace.study import load_study
    from finetrace.tracking.publish import publish

    publish(stage.layout, load_study(stage.layout.params))


if __name__ == "__main__":
    run("publish", main)
