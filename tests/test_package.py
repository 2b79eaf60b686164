"""The wheel and the sdist: what is in them, what installing them brings, and that the installed package works."""

from __future__ import annotations

import email
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from edgepose.shipped import MAX_MODEL_BYTES, MODEL

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MAX_WHEEL_BYTES = 2_000_000 + MAX_MODEL_BYTES
MODEL_SUFFIXES = {".onnx", ".tflite", ".pt", ".pth", ".bin", ".xml", ".engine", ".pte", ".param"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment where the wheel is installed, with nothing but what it brings itself."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True)
    return python


def run(python: Path, *arguments: str, **environment: str) -> str:
    """What a command of the fresh environment prints, started outside of the repository."""
    command = [str(python), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=python.parent, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_the_wheel_is_typed(members: set[str]) -> None:
    assert {"edgepose/py.typed", "edgepose/_core.pyi", "edgepose_trainer/py.typed"} <= members


def test_the_wheel_holds_every_source_file_and_no_other(members: set[str]) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("needs the git repository")
    sources = {name.removeprefix("trainer/") for name in tracked.stdout.splitlines() if ROOT.joinpath(name).is_file()}
    sources = {name for name in sources if name.startswith(("edgepose/", "edgepose_trainer/"))}
    held = {name for name in members if ".dist-info/" not in name}
    assert {re.sub(r"_core\..*\.so$", "_core.so", name) for name in held} == {*sources, "edgepose/_core.so"}


def test_the_wheel_holds_no_model_but_the_default_one_and_no_tests(members: set[str]) -> None:
    others = members - {"edgepose/assets/person.tflite"}
    assert [name for name in others if Path(name).suffix in MODEL_SUFFIXES or "test" in name] == []


def test_wheel_and_sdist_hold_the_default_model_and_its_terms(dist: Path, members: set[str]) -> None:
    if not MODEL.is_file():
        pytest.skip("the default model is not made yet: edgepose/assets/person.tflite")
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"edgepose/assets/person.tflite", "edgepose/assets/README.md", "NOTICE"} <= names
    assert {"edgepose/assets/person.tflite", "edgepose/assets/README.md"} <= members


def test_the_wheel_says_its_licence_and_needs_no_torch(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    plain = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(re.split(r"[<>=;! ]", line)[0] for line in plain) == [
        "ai-edge-litert",
        "numpy",
        "pillow",
        "pyyaml",
        "tflite-runtime",
        "tqdm",
    ]


def test_the_sdist_holds_what_a_build_needs_and_no_more(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "csrc/core/decode.cpp"} <= names
    assert not [
        name for name in names if name.startswith(("tests/", "docs/", "build/", ".ci/")) or name.endswith(".so")
    ]


def test_no_build_file_asks_for_this_machines_own_instructions() -> None:
    files = [
        ROOT / "CMakeLists.txt",
        ROOT / "pyproject.toml",
        *ROOT.glob("cmake/*"),
        *ROOT.glob("csrc/**/CMakeLists.txt"),
    ]
    assert len(files) > 4
    assert [file.name for file in files if re.search(r"m(arch|tune|cpu)=native", file.read_text())] == []


def test_a_plain_install_brings_a_tflite_runtime_and_no_torch(site: Path) -> None:
    installed = {line.split("==")[0].lower() for line in run(site, "-m", "pip", "list", "--format=freeze").splitlines()}
    assert {"numpy", "pillow", "edgepose"} < installed
    assert installed & {"ai-edge-litert", "ai_edge_litert", "tflite-runtime"}
    assert not installed & {"torch", "onnxruntime", "openvino", "opencv-python-headless", "matplotlib"}


def test_the_installed_command_says_its_version(site: Path, metadata: Message) -> None:
    assert run(site, str(site.parent / "edgepose"), "--version").split()[-1] == metadata["Version"]


def test_the_installed_package_imports_only_numpy_and_its_core(site: Path) -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import edgepose; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    assert run(site, "-c", code).split() == ["edgepose"]


def test_the_trainer_is_missing_with_the_name_of_its_extra(site: Path) -> None:
    code = "import edgepose\ntry: edgepose.PoseModel\nexcept ImportError as error: print(error)"
    assert 'pip install "edgepose[train]"' in run(site, "-c", code)


def test_the_installed_package_finds_people(site: Path, shared: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from edgepose import PoseRunner; "
        "print(len(PoseRunner(sys.argv[1], conf=0.1).predict(sys.argv[2])))"
    )
    model = shared / "models/movenet_single_pose_lightning_ptq.tflite"
    arguments = (str(model.resolve()), str((shared / "data/squat.bmp").resolve()))
    assert run(site, "-c", code, *arguments, EDGEPOSE_CACHE=str(tmp_path)) == "1\n"


def test_the_installed_command_finds_people_in_the_photos_that_ship(site: Path, tmp_path: Path) -> None:
    if not MODEL.is_file():
        pytest.skip("the default model is not made yet: edgepose/assets/person.tflite")
    arguments = ("predict", f"project={tmp_path}")
    printed = run(site, str(site.parent / "edgepose"), *arguments, EDGEPOSE_CACHE=str(tmp_path / "cache"))
    assert {path.name for path in (tmp_path / "predict").iterdir()} == {"astronaut.jpg", "photographer.jpg"}
    assert "person" in printed


SMALL_LETTERBOX = """
import numpy as np
from edgepose import _core
out = np.zeros((1, 3, 96, 96), np.float32)
_core.Letterbox()(np.arange(50 * 70 * 3, dtype=np.uint8).reshape(50, 70, 3), out)
print(_core.simd_level(), out.sum(dtype=np.float64))
"""


def test_the_installed_core_gives_the_same_with_plain_instructions(site: Path) -> None:
    level, total = run(site, "-c", SMALL_LETTERBOX).split()
    assert run(site, "-c", SMALL_LETTERBOX, EDGEPOSE_SIMD="plain").split() == ["plain", total]
    assert level in ("plain", "avx2", "avx512", "neon")


@pytest.mark.parametrize(("level", "message"), [("sse9", "unknown simd level 'sse9'"), ("neon", "cannot run on this")])
def test_a_level_that_cannot_be_had_is_refused(site: Path, level: str, message: str) -> None:
    if level == "neon" and platform.machine() in ("aarch64", "arm64"):
        pytest.skip("this processor has it")
    with pytest.raises(AssertionError, match=f"ValueError: EDGEPOSE_SIMD in the environment: .*{message}"):
        run(site, "-c", SMALL_LETTERBOX, EDGEPOSE_SIMD=level)


LOAD_CORE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
print(core.simd_level(), *core.available_simd_levels())
"""


def test_the_core_loads_on_a_processor_without_avx(site: Path) -> None:
    """A Nehalem of 2008, emulated; without numpy, whose own wheels want more."""
    emulator = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs qemu-x86_64, of qemu-user-static")
    (core,) = site.parents[1].glob("lib/python*/site-packages/edgepose/_core*.so")
    command = [emulator, "-cpu", "Nehalem", str(site.resolve()), "-c", LOAD_CORE, str(core)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["plain", "plain"]
