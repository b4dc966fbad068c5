"""python pipelines/settings.py -- resolved settings of every item, and fingerprints of the code -> settings/"""

import sys

from finetrace.errors import FinetraceError
from finetrace.layout import Layout


def main() -> int:
    from finetrace.pipeline.compile import write_settings
    from finetrace.pipeline.temporary import whole_study

    layout = Layout.here()
    try:
        changed = write_settings(layout, whole_study(layout))
    except FinetraceError as error:
        print(f"finetrace: {error}", file=sys.stderr)
        return 1
    print(f"settings: {len(changed)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
