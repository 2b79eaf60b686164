#!/usr/bin/env bash
# Proves the aarch64 build on an x86 machine: cross-builds the wheel and the C++ tests, then runs, under QEMU, the C++ tests, the
# core's Python tests and a real TFLite prediction whose answer must be the one that this machine gives.
# usage: run.sh [WORK_DIR]      PYTHON: a Python 3.11 that has edgepose installed
# needs: apt-get install cmake qemu-user-static g++-aarch64-linux-gnu
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
work=$(realpath -m "${1:-$repo/build/aarch64}")
python=${PYTHON:-python3.11}
mkdir -p "$work"

"$repo/tests/aarch64/make_root.sh" "$work/root"

echo "== C++ tests"
export EDGEPOSE_AARCH64_ROOT="$work/root"
cmake -S "$repo" -B "$work/core" -DCMAKE_TOOLCHAIN_FILE="$repo/cmake/aarch64-linux-gnu.cmake" -DCMAKE_BUILD_TYPE=Release \
      -DEDGEPOSE_PYTHON=OFF -DEDGEPOSE_TESTS=ON > /dev/null
cmake --build "$work/core" -j2 > "$work/core.log" 2>&1 || { cat "$work/core.log" >&2; exit 1; }
QEMU_CPU=cortex-a72 qemu-aarch64-static -L /usr/aarch64-linux-gnu "$work/core/csrc/tests/core_tests"

echo "== wheel"
rm -rf "$work/wheel" "$work/site"
PYTHON="$python" "$repo/tests/aarch64/build_wheel.sh" "$work/root" "$work/wheel"
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --platform linux_aarch64)
"$python" -m pip install -q --target "$work/site" "${platforms[@]}" --only-binary=:all: --python-version 3.11 \
    "$work"/wheel/edgepose-*.whl -r "$repo/tests/aarch64/requirements.txt"

arm_python() {
  QEMU_CPU=cortex-a72 PYTHONPATH="$work/site" PYTHONDONTWRITEBYTECODE=1 \
    qemu-aarch64-static -L "$work/root" "$work/root/usr/bin/python3.11" "$@"
}
# Away from the source tree, so that the wheel is what is imported.
cd "$work"

echo "== the core's Python tests"
arm_python -m pytest -c "$repo/pyproject.toml" --rootdir "$repo" -q -p no:benchmark "$repo/tests/core"

echo "== a prediction with the TFLite runtime"
if [ -d "$repo/../shared/models" ]; then
  "$python" "$repo/tests/aarch64/predict.py" "$repo/../shared" > "$work/here.json"
  arm_python "$repo/tests/aarch64/predict.py" "$repo/../shared" > "$work/aarch64.json"
  "$python" "$repo/tests/aarch64/compare.py" "$work/here.json" "$work/aarch64.json"
else
  echo "skipped: no ../shared/models"
fi
