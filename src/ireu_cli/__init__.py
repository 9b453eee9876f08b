"""ireu: make image generators unable to draw a particular person, by editing their image encoder.

Importing the package imports nothing heavy; torch starts inside the commands.
"""

import os

# onnxruntime tells its makers about machine, networks and errors unless this is set before its import (its
# `Privacy.md`). Requests to be forgotten are nobody else's business; who sets the variable to 0 is heard.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
