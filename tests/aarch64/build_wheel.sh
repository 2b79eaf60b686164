#!/usr/bin/env bash
# Cross-builds the aarch64 wheel for the Python of a root that make_root.sh made.
# usage: build_wheel.sh ROOT OUT_DIR      needs: g++-aarch64-linux-gnu, Python 3.11 with pip
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
EDGEPOSE_AARCH64_ROOT=$(realpath "$1")
export EDGEPOSE_AARCH64_ROOT
export _PYTHON_HOST_PLATFORM=linux-aarch64
export CMAKE_ARGS="-DCMAKE_TOOLCHAIN_FILE=$repo/cmake/aarch64-linux-gnu.cmake"
"${PYTHON:-python3.11}" -m pip wheel -q --no-deps -w "$2" "$repo"
