"""`ireu` with kinds of somebody else's: `python -m tests.kinds.run KIND,KIND ARGUMENTS`."""

import importlib
import sys

from ireu_cli.cli.app import main

if __name__ == "__main__":
    kinds, *arguments = sys.argv[1:]
    for kind in kinds.split(","):
        importlib.import_module(f"tests.kinds.{kind}")
    raise SystemExit(main(arguments))
