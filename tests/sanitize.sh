#!/usr/bin/env bash
# Builds the core with AddressSanitizer and UndefinedBehaviorSanitizer and runs its C++ tests and its Python tests on that build.
# PYTHON: one that has the test requirements. needs: cmake
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
build=build/sanitize
cmake -S . -B "$build" -DEDGEPOSE_SANITIZE=ON -DEDGEPOSE_TESTS=ON -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" > /dev/null
cmake --build "$build" -j2
"$build/csrc/tests/core_tests"

# The Python sources beside the sanitized extension. -S leaves out site's hooks, so that no installed edgepose is found before them. The interpreter
# itself leaks at exit, by design: no leak check there.
rm -rf "$build/site" && mkdir -p "$build/site"
cp -r edgepose "$build/site/"
rm -f "$build"/site/edgepose/_core*.so
cp "$build"/csrc/bindings/_core*.so "$build/site/edgepose/"
packages=$("$python" -c 'import numpy, pathlib; print(pathlib.Path(numpy.__file__).parents[1])')
export PYTHONPATH="$PWD/$build/site:$packages" ASAN_OPTIONS=detect_leaks=0
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" "$python" -S - <<'PYTHON'
import sys

del sys.path[0]  # the working folder, where the sources stand without the sanitized extension
import pytest
import edgepose._core

assert "/build/sanitize/" in edgepose._core.__file__, edgepose._core.__file__
sys.exit(pytest.main(["-q", "tests/core"]))
PYTHON
