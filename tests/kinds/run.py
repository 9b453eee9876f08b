"""`ireu` with a kind of somebody else's: `python -m tests.kinds.run KIND ARGUMENTS`."""

import importlib
import sys

from ireu_cli.cli.app import main

if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    importlib.import_module(f"tests.kinds.{kind}")
    raise SystemExit(main(arguments))
