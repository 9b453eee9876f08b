"""The register of cases: what a finished step adds to it, and what it says of each case."""
