"""`python -m ireu_cli.example > ireu.toml.example` writes the example configuration from the schema."""

import sys

from ireu_cli.config import example_toml

if __name__ == "__main__":
    sys.stdout.write(example_toml())
