"""Tests; none of them asks a model hub for anything."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
