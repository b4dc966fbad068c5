"""python pipelines/plan.py -- params.yaml -> plan.yaml, over which dvc.yaml loops

Fails, having rewritten plan.yaml, when it was not that of params.yaml: DVC has read the old one. `finetrace repro`
does this first.
"""

import sys

from finetrace.errors import FinetraceError
from finetrace.layout import Layout


def main() -> int:
    from finetrace.pipeline.compile import write_plan
    from finetrace.pipeline.temporary import whole_study

    layout = Layout.here()
    try:
        changed = write_plan(layout, whole_study(layout))
    except FinetraceError as error:
        print(f"finetrace: {error}", file=sys.stderr)
        return 1
    if changed:
        print("finetrace: params.yaml asks for other items than before: plan.yaml is written; run the "
              "same command again",
              file=sys.stderr)
    return int(changed)


if __name__ == "__main__":
    sys.exit(main())
