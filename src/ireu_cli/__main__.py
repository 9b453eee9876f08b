"""`python -m ireu_cli` is the same as `ireu`."""

from ireu_cli.cli.app import run

if __name__ == "__main__":
    run()
