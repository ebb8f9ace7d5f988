#!/usr/bin/env bash
# What a GPU does with hkrun, in under ten minutes: its tests, its curves beside the CPU's, the time of steps.
#
#     benchmarks/gpu_check.sh                   # writes gpu-check/gpu_check.md and gpu_check.json
#     benchmarks/gpu_check.sh --out results     # elsewhere
#     benchmarks/gpu_check.sh --device cpu      # does the script work? networks of toys, no GPU
#
# Needs torch (2.11 or newer), numpy and pyarrow in the Python that PYTHON names (default: python3); no pytest, no
# network, and hkrun need not be installed. Exit status 1: a test failed, or curves differ.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root:$root/tests${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" "$root/benchmarks/gpu_check.py" "$@"
