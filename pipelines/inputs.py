"""python pipelines/inputs.py FROM TO -- one input of a stage that has any number of them,
which DVC cannot be told as a list."""

import sys
from pathlib import Path

from finetrace.store.files import write_bytes


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    write_bytes(target, source.read_bytes())


if __name__ == "__main__":
    main()
