#!/usr/bin/env bash
# Check a machine with a CUDA device: tests that need one, then the benchmark. Installs nothing; takes minutes.
# PYTHON names the interpreter that has ireu's packages, DEVICE the torch device.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}" DEVICE="${DEVICE:-cuda}"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name())'
"$PYTHON" benchmarks/device.py --device "$DEVICE" "$@"
"$PYTHON" -m pytest -q -p no:cacheprovider tests/test_cuda.py
