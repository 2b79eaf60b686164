from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepose import backends
from edgepose.artifact import open_artifact
from edgepose.backends import tflite as tflite_backend
from edgepose.backends.base import Backend, Options
from edgepose.contract import ModelSpec, Quantization

Make = Callable[..., Path]

RUNTIME_OF = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "tflite"}


def _load(path: Path, backend: str, **options: Any) -> Backend:
    return backends.load(backend, str(path), Options(**options))


@pytest.fixture
def loaded(request: pytest.FixtureRequest) -> tuple[Backend, tuple[int, ...]]:
    """A loaded small model of the named runtime, and its input shape."""
    if request.param == "tflite":
        return _load(request.getfixturevalue("make_tflite")({"a": 5, "b": 7}), "tflite"), (1, 8, 8, 3)
    pytest.importorskip(request.param)
    path = request.getfixturevalue("make_onnx")({"a": (1, 5, 6), "b": (1, 7, 6)})
    return _load(path, request.param), (1, 3, 64, 96)


each_runtime = pytest.mark.parametrize("loaded", ["onnxruntime", "openvino", "tflite"], indirect=True)


@each_runtime
def test_the_input_buffer_is_what_infer_reads(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    backend, shape = loaded
    answers = []
    for value in (1, 4):
        buffer = backend.input_buffer(shape)
        buffer[...] = value
        answers.append(float(backend.infer()[1].flat[0]))
    assert answers[1] - answers[0] == 3


@each_runtime
def test_the_input_buffer_is_contiguous_writable_and_kept(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    backend, shape = loaded
    buffer = backend.input_buffer(shape)
    assert buffer.shape == shape
    assert buffer.flags.c_contiguous
    assert buffer.flags.writeable
    backend.infer()
    assert backend.input_buffer(shape) is buffer


@each_runtime
def test_outputs_are_in_the_order_of_their_specs(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    backend, shape = loaded
    backend.input_buffer(shape)[...] = 0
    assert [tensor.name for tensor in backend.outputs] == ["a", "b"]
    assert [result.shape for result in backend.infer()] == [tensor.shape for tensor in backend.outputs]


@each_runtime
def test_selected_outputs_are_the_only_ones(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    backend, shape = loaded
    backend.input_buffer(shape)[...] = 0
    backend.infer()
    backend.select_outputs([1])
    backend.input_buffer(shape)[...] = 2
    assert [tensor.name for tensor in backend.outputs] == ["b"]
    assert [result.shape for result in backend.infer()] == [backend.outputs[0].shape]


@each_runtime
def test_fixed_outputs_are_views_made_once(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    backend, shape = loaded
    backend.input_buffer(shape)[...] = 0
    first = [result.ctypes.data for result in backend.infer()]
    assert [result.ctypes.data for result in backend.infer()] == first


@each_runtime
def test_results_stay_readable_after_close(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    backend, shape = loaded
    backend.input_buffer(shape)[...] = 0
    results = backend.infer()
    expected = [result.copy() for result in results]
    backend.close()
    backend.close()
    gc.collect()
    for result, copy in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, copy)


@each_runtime
def test_another_shape_than_the_models_is_refused(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    backend, _ = loaded
    with pytest.raises(ValueError, match=r"got an input of shape \(1, 3, 8\), expected \(1, "):
        backend.input_buffer((1, 3, 8))


@each_runtime
def test_infer_before_any_input_is_an_error(loaded: tuple[Backend, tuple[int, ...]]) -> None:
    with pytest.raises(RuntimeError, match="before input_buffer"):
        loaded[0].infer()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_dynamic_model_takes_one_shape_after_another(make_onnx: Make, runtime: str) -> None:
    pytest.importorskip(runtime)
    path = make_onnx({"a": (1, 5, 6)}, ("batch", 3, "height", "width"))
    backend = _load(path, runtime)
    assert backend.inputs[0].shape == (None, 3, None, None)
    for shape in [(1, 3, 32, 64), (2, 3, 64, 32), (1, 3, 32, 64)]:
        backend.input_buffer(shape)[...] = shape[0]
        assert float(backend.infer()[0].flat[0]) == shape[0]


def test_a_dynamic_tflite_model_takes_one_shape_after_another(make_tflite: Make) -> None:
    backend = _load(make_tflite({"a": 5}, dynamic=True), "tflite")
    assert backend.inputs[0].shape == (1, None, None, 3)
    for side in (8, 16, 8):
        buffer = backend.input_buffer((1, side, side, 3))
        buffer[...] = side
        np.testing.assert_array_equal(backend.infer()[0], np.full((1, 1, 5), side))


def test_a_tflite_model_that_refused_a_shape_takes_the_next(make_tflite: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = _load(make_tflite({"a": 5}, dynamic=True), "tflite")
    backend.input_buffer((1, 8, 8, 3))

    def refuse() -> None:
        raise RuntimeError("tensors cannot be concatenated")

    with monkeypatch.context() as patch:
        patch.setattr(backend._interpreter, "allocate_tensors", refuse)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="does not take an input of shape"):
            backend.input_buffer((1, 9, 9, 3))
    backend.input_buffer((1, 8, 8, 3))[...] = 3
    np.testing.assert_array_equal(backend.infer()[0], np.full((1, 1, 5), 3))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8"])
def test_the_input_has_the_type_that_the_model_declares(make_onnx: Make, runtime: str, dtype: str) -> None:
    pytest.importorskip(runtime)
    backend = _load(make_onnx({"a": (1, 5, 6)}, dtype=dtype), runtime)
    buffer = backend.input_buffer((1, 3, 64, 96))
    buffer[...] = 5
    assert buffer.dtype == dtype
    assert float(backend.infer()[0].flat[0]) == 5


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_tflite_tells_types_and_quantization(make_tflite: Make, dtype: str) -> None:
    tensor = _load(make_tflite({"a": 5}, dtype=dtype), "tflite").inputs[0]
    assert tensor.dtype == dtype
    assert tensor.quantization == (None if dtype == "float32" else Quantization(pytest.approx(0.05), 3))


def test_openvino_and_onnxruntime_agree_on_a_real_model(shared: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    path = shared / "models/yolov8n-pose_320.onnx"
    picture = np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    answers = []
    for runtime in ("onnxruntime", "openvino"):
        artifact = open_artifact(path, backend=runtime, precision="f32", threads=1)
        artifact.backend.input_buffer(picture.shape)[...] = picture
        answers.append(artifact.backend.infer()[0].copy())
        artifact.close()
    np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


def test_movenet_agrees_with_the_interpreter_itself(movenet: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    picture = np.random.default_rng(0).integers(0, 256, (1, 192, 192, 3), np.uint8)
    bare = Interpreter(str(movenet), num_threads=1)
    bare.allocate_tensors()
    bare.set_tensor(bare.get_input_details()[0]["index"], picture)
    bare.invoke()
    backend = open_artifact(movenet, threads=1).backend
    backend.input_buffer(picture.shape)[...] = picture
    np.testing.assert_array_equal(backend.infer()[0], bare.get_tensor(bare.get_output_details()[0]["index"]))


def test_two_backends_in_two_threads_do_not_disturb_each_other(movenet: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 1, 192, 192, 3), np.uint8)
    answers: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def work(which: int) -> None:
        backend = open_artifact(movenet, threads=1).backend
        for _ in range(5):
            backend.input_buffer((1, 192, 192, 3))[...] = pictures[which]
            answers[which].append(backend.infer()[0].copy())

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in (0, 1):
        assert len(answers[which]) == 5
        assert all(np.array_equal(answer, answers[which][0]) for answer in answers[which])
    assert not np.array_equal(answers[0][0], answers[1][0])


def test_ctrl_c_is_survived_after_openvino_models_came_and_went(make_openvino: Make) -> None:
    """With an OpenVINO core each, of two models closed in the order they were opened, it was a segmentation fault."""
    code = f"""
import signal
from edgepose import backends
from edgepose.backends.base import Options
opened = [backends.load("openvino", {str(make_openvino({"a": (1, 5, 6)}))!r}, Options(threads=1)) for _ in range(3)]
while opened:
    opened.pop(0).close()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("survived")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


# Options


@pytest.mark.parametrize(
    ("runtime", "device", "message"),
    [
        ("onnxruntime", "gpu", "'gpu', expected one of auto, cpu"),
        ("onnxruntime", "cpuu", "did you mean 'cpu'?"),
        ("openvino", "cuda", "'cuda', expected one of auto, cpu"),
        ("tflite", "edgetpi", "did you mean 'edgetpu'?"),
        ("tflite", "npu", "expected one of auto, cpu, edgetpu"),
        ("tflite", "usb:x", "'usb:x', expected one of"),
    ],
)
def test_an_unknown_device_names_those_there_are(
    make_onnx: Make, make_tflite: Make, runtime: str, device: str, message: str
) -> None:
    if runtime != "tflite":
        pytest.importorskip(runtime)
    path = make_tflite({"a": 5}) if runtime == "tflite" else make_onnx({"a": (1, 5, 6)})
    with pytest.raises(ValueError, match="device") as caught:
        _load(path, runtime, device=device)
    assert message in str(caught.value)


def test_a_cuda_device_where_the_provider_is_there(make_onnx: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from edgepose.backends.onnxruntime import _providers

    class Runtime:
        @staticmethod
        def get_available_providers() -> list[str]:
            return ["CUDAExecutionProvider", *onnxruntime.get_available_providers()]

    cuda = ("CUDAExecutionProvider", {"device_id": 1})
    assert _providers(Runtime, "cuda:1") == [cuda, "CPUExecutionProvider"]
    assert _providers(Runtime, "auto")[0][0] == "CUDAExecutionProvider"
    assert _providers(Runtime, "cpu") == ["CPUExecutionProvider"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite"])
@pytest.mark.parametrize("precision", ["f16", "bf16", "int8"])
def test_a_precision_that_the_runtime_does_not_take(
    make_onnx: Make, make_tflite: Make, runtime: str, precision: str
) -> None:
    path = make_tflite({"a": 5}) if runtime == "tflite" else make_onnx({"a": (1, 5, 6)})
    with pytest.raises(ValueError, match=rf"precision='{precision}', .* takes 'f32' or None"):
        _load(path, runtime, precision=precision)


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_openvino_is_told_the_precision(make_onnx: Make, precision: str) -> None:
    pytest.importorskip("openvino")
    from edgepose.backends.openvino import _config

    assert _config(Options(precision=precision))["INFERENCE_PRECISION_HINT"] == precision
    backend = _load(make_onnx({"a": (1, 5, 6)}), "openvino", precision=precision)
    backend.input_buffer((1, 3, 64, 96))[...] = 0
    assert backend.infer()[0].dtype == np.float32


def test_openvino_refuses_an_unknown_precision(make_onnx: Make) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ValueError, match="precision='f64', OpenVINO takes 'f32', 'f16', 'bf16' or None"):
        _load(make_onnx({"a": (1, 5, 6)}), "openvino", precision="f64")


@pytest.mark.parametrize(("threads", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_bad_number_of_threads(make_onnx: Make, threads: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="threads="):
        open_artifact(make_onnx({"a": (1, 56, 6)}), threads=threads, spec="yolov8-pose")


def test_an_unknown_backend_names_the_nearest(make_onnx: Make) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'onnxruntime'\?"):
        open_artifact(make_onnx({"a": (1, 56, 6)}), backend="onnx-runtime")


def test_a_backend_that_does_not_run_the_format(movenet: Path) -> None:
    with pytest.raises(ValueError, match="backend='onnxruntime' does not run tflite models, expected one of tflite"):
        open_artifact(movenet, backend="onnxruntime")


@pytest.mark.parametrize(
    ("runtime", "module", "extra"),
    [
        ("onnxruntime", "onnxruntime", r"pip install \"edgepose\[onnx\]\""),
        ("openvino", "openvino", r"pip install \"edgepose\[openvino\]\""),
        ("tflite", "ai_edge_litert", "pip install ai-edge-litert"),
    ],
)
def test_a_missing_runtime_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.interpreter", None)
    with pytest.raises(ImportError, match=extra):
        _load(tmp_path / "unread", runtime)


# What runtimes print


@each_runtime
def test_a_runtime_prints_nothing(loaded: tuple[Backend, tuple[int, ...]], capfd: pytest.CaptureFixture[str]) -> None:
    backend, shape = loaded
    backend.input_buffer(shape)[...] = 0
    backend.infer()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [False, True])
def test_only_with_verbose_does_a_fresh_process_hear_of_xnnpack(make_tflite: Make, verbose: bool) -> None:
    path = make_tflite({"a": 5}, dtype="float32")
    code = (
        "from edgepose import backends; from edgepose.backends.base import Options; "
        f"backends.load('tflite', {str(path)!r}, Options(verbose={verbose}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("XNNPACK" in done.stderr) == verbose
    assert done.stdout == ""


def test_lines_that_others_print_meanwhile_are_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    from edgepose.backends.quiet import quiet_stderr

    with quiet_stderr(False):
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        os.write(2, b"a line of another thread\n")
    assert capfd.readouterr().err == "a line of another thread\n"


def test_the_standard_error_is_given_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    from edgepose.backends.quiet import quiet_stderr

    with pytest.raises(ValueError, match="broken"), quiet_stderr(False):
        raise ValueError("broken")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


# The Edge TPU


class StandIn:
    """Takes the place of load_delegate, and of the interpreter that the delegate goes into."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.delegates: Any = None
        real_interpreter, _, version = tflite_backend.runtime()
        delegate = object()

        def load_delegate(library: str, options: dict[str, str]) -> object:
            self.calls.append((library, options))
            return delegate

        def interpreter(path: str, *, experimental_delegates: Any, num_threads: int | None) -> Any:
            self.delegates = experimental_delegates
            assert experimental_delegates == [delegate]
            return real_interpreter(path, num_threads=num_threads)

        monkeypatch.setattr(tflite_backend, "runtime", lambda: (interpreter, load_delegate, version))
        monkeypatch.setattr(tflite_backend, "_check_library", lambda library: None)
        monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("edgetpu", {}),
        ("edgetpu:0", {"device": ":0"}),
        ("edgetpu:1", {"device": ":1"}),
        ("usb", {"device": "usb"}),
        ("usb:1", {"device": "usb:1"}),
        ("pci", {"device": "pci"}),
        ("pci:0", {"device": "pci:0"}),
    ],
)
def test_the_delegate_gets_the_device_as_coral_documents_it(
    make_tflite: Make, heads_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, device: str, options: dict[str, str]
) -> None:
    stand_in = StandIn(monkeypatch)
    path = make_tflite({"box": 64, "score": 1, "keypoints": 6})
    artifact = open_artifact(path, spec=heads_spec, device=device)
    artifact.backend.input_buffer((1, 8, 8, 3))[...] = 0
    assert len(artifact.backend.infer()) == 3
    assert stand_in.calls == [("libedgetpu.so.1", options)]


@pytest.mark.parametrize("device", ["edgetpu", "usb", "pci:1"])
def test_a_missing_libedgetpu_says_what_to_install(make_tflite: Make, device: str) -> None:
    with pytest.raises(ImportError, match=r"libedgetpu.so.1.*docs/boards/coral.md"):
        _load(make_tflite({"a": 5}), "tflite", device=device)


def test_libedgetpu_without_an_edge_tpu_says_so(make_tflite: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real_interpreter, _, version = tflite_backend.runtime()

    def load_delegate(library: str, options: dict[str, str]) -> object:
        raise ValueError(f"Failed to load delegate from {library}\n")

    monkeypatch.setattr(tflite_backend, "runtime", lambda: (real_interpreter, load_delegate, version))
    monkeypatch.setattr(tflite_backend, "_check_library", lambda library: None)
    with pytest.raises(RuntimeError, match="opened no Edge TPU: is it plugged in"):
        _load(make_tflite({"a": 5}), "tflite", device="edgetpu")


def test_a_model_without_an_output_is_refused(make_tflite: Make) -> None:
    with pytest.raises(ValueError, match="got a model with 1 inputs and 0 outputs"):
        _load(make_tflite({}), "tflite")


class Log:
    """What some daemons put in the place of the standard error."""

    def write(self, text: str) -> int:
        return len(text)


def test_a_standard_error_that_cannot_be_flushed_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepose.backends.quiet import quiet_stderr

    monkeypatch.setattr(sys, "stderr", Log())
    with quiet_stderr(False):
        pass


@pytest.mark.skipif(not (hasattr(os, "fork") and hasattr(os, "memfd_create")), reason="needs fork and memfd_create")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that is just what is tried
def test_a_child_that_is_forked_while_another_thread_loads_can_load_too() -> None:
    from edgepose.backends.quiet import quiet_stderr

    inside, done = threading.Event(), threading.Event()

    def load() -> None:
        with quiet_stderr(False):
            inside.set()
            done.wait(30)

    loading = threading.Thread(target=load)
    loading.start()
    assert inside.wait(10)
    held = os.fstat(2).st_ino
    child = os.fork()
    if child == 0:
        with quiet_stderr(False):
            pass
        os._exit(0 if os.fstat(2).st_ino != held else 3)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    done.set()
    loading.join()
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
