"""The child process that tries one runtime: `main(NAME)` prints one JSON object.

A probe imports the runtime and lets it compute one addition, or opens the device: what merely imports may still die on
its first instruction. A probe raises ModuleNotFoundError (or FileNotFoundError) where there is nothing to try.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

EDGETPU_LIBRARY: Final = "libedgetpu.so.1"

# y = x + x for x of shape (1, 4), float32.
_ADD_TFLITE: Final = (
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAYAAAA6AAAAAMAAAABAAAABAAAACD///8BAAAAEAAAAAwAFAAQAAwACAAEAAwAAAAQAAAAUAAAAFQA"
    "AABYAAAAAQAAABQAAAAAAA4AFAAAABAADAALAAQADgAAABAAAAAAAAALDAAAABAAAAB4////AQAAAAEAAAACAAAAAAAAAAAAAAABAAAAAQAAAAEAAAAAAAAA"
    "AgAAADQAAAAEAAAA4P///wgAAAAMAAAAAQAAAHkAAAACAAAAAQAAAAQAAAAMAAwACAAAAAAABAAMAAAACAAAAAwAAAABAAAAeAAAAAIAAAABAAAABAAAAAEA"
    "AAAIAAAABAAEAAQAAAA="
)
_ADD_ONNX: Final = "CAcSADo8Cg4KAXgKAXgSAXkiA0FkZBIAWhMKAXgSDgoMCAESCAoCCAEKAggEYhMKAXkSDgoMCAESCAoCCAEKAggEQgQKABAN"


def onnxruntime() -> dict[str, Any]:
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(base64.b64decode(_ADD_ONNX), providers=["CPUExecutionProvider"])
    _check_sum(session.run(None, {"x": np.ones((1, 4), np.float32)})[0])
    return {"version": ort.__version__, "providers": ort.get_available_providers()}


def openvino() -> dict[str, Any]:
    import openvino as ov

    core = ov.Core()
    devices = {device: str(core.get_property(device, "FULL_DEVICE_NAME")) for device in core.available_devices}
    return {"version": ov.__version__, "devices": devices}


def openvino_device(device: str) -> dict[str, Any]:
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    x = ops.parameter([1, 4], np.float32)
    compiled = ov.Core().compile_model(ov.Model([ops.add(x, x)], [x]), device)
    _check_sum(compiled([np.ones((1, 4), np.float32)])[0])
    return {}


def tflite() -> dict[str, Any]:
    module, version = _tflite_module()
    with tempfile.TemporaryFile() as chatter:
        saved = os.dup(2)
        os.dup2(chatter.fileno(), 2)
        try:
            _run_tflite(module, [])
        finally:
            os.dup2(saved, 2)
        chatter.seek(0)
        xnnpack = b"XNNPACK delegate" in chatter.read()
    folder = Path(str(module.__file__)).parent
    accelerators = sorted(path.name for path in folder.glob("libLiteRt*Accelerator.so"))
    return {"package": version[0], "version": version[1], "xnnpack": xnnpack, "accelerators": accelerators}


def edgetpu(library: str = EDGETPU_LIBRARY) -> dict[str, Any]:
    """libedgetpu by its C interface (edgetpu_c.h); then its delegate in the TFLite runtime, where a device is there."""
    lib = _load_library(library)
    lib.edgetpu_version.restype = ctypes.c_char_p
    facts = {"version": lib.edgetpu_version().decode("utf-8", "replace"), "devices": _edgetpu_devices(lib)}
    if facts["devices"]:
        module, _ = _tflite_module()
        _run_tflite(module, [module.load_delegate(library)])
    return facts


def gpu() -> dict[str, Any]:
    """What GPU delegates lean on: OpenCL platforms, and TFLite's own GPU delegate library."""
    names: list[str] = []
    delegate = False
    with suppress(FileNotFoundError):
        names = _opencl_platforms(_load_library("libOpenCL.so.1"))
    with suppress(FileNotFoundError):
        delegate = bool(_load_library("libtensorflowlite_gpu_delegate.so"))
    if not names and not delegate:
        raise FileNotFoundError("neither an OpenCL platform nor libtensorflowlite_gpu_delegate.so")
    return {"opencl": names, "tflite_gpu_delegate": delegate}


def opencv() -> dict[str, Any]:
    import cv2

    lines = cv2.getBuildInformation().splitlines()
    parts = dict(line.split(":", 1) for line in lines if line.count(":") >= 1)
    built = {key.strip(): value.strip() for key, value in parts.items()}
    return {
        "version": cv2.__version__,
        "window": built.get("GUI", "NONE") != "NONE",
        "ffmpeg": built.get("FFMPEG", "NO").startswith("YES"),
        "gstreamer": built.get("GStreamer", "NO").startswith("YES"),
        "v4l": built.get("v4l/v4l2", "NO").startswith("YES"),
    }


PROBES: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    probe.__name__: probe for probe in (onnxruntime, openvino, openvino_device, tflite, edgetpu, gpu, opencv)
}


def _check_sum(total: Any) -> None:
    if [float(value) for value in total.reshape(-1)] != [2.0] * 4:
        raise RuntimeError(f"1 + 1 gave {total.tolist()}")


def _tflite_module() -> tuple[Any, tuple[str, str]]:
    from importlib.metadata import version

    try:
        import ai_edge_litert.interpreter as litert

        return litert, ("ai-edge-litert", version("ai-edge-litert"))
    except ModuleNotFoundError:
        import tflite_runtime.interpreter as tflite_runtime

        return tflite_runtime, ("tflite-runtime", version("tflite-runtime"))


def _run_tflite(module: Any, delegates: list[Any]) -> None:
    import numpy as np

    model = base64.b64decode(_ADD_TFLITE)
    interpreter = module.Interpreter(model_content=model, experimental_delegates=delegates)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones((1, 4), np.float32))
    interpreter.invoke()
    _check_sum(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def _load_library(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        # The loader's message begins with the file that is missing: the library itself, or one that it needs.
        if str(error).startswith(f"{name}: cannot open shared object"):
            raise FileNotFoundError(f"{name} is not installed") from None
        raise


class _EdgeTpuDevice(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("path", ctypes.c_char_p))


def _edgetpu_devices(lib: ctypes.CDLL) -> list[dict[str, str]]:
    lib.edgetpu_list_devices.restype = ctypes.POINTER(_EdgeTpuDevice)
    lib.edgetpu_free_devices.argtypes = (ctypes.POINTER(_EdgeTpuDevice),)
    count = ctypes.c_size_t(0)
    devices = lib.edgetpu_list_devices(ctypes.byref(count))
    found = [
        {"bus": {0: "pci", 1: "usb"}.get(device.type, "unknown"), "path": device.path.decode("utf-8", "replace")}
        for device in (devices[: count.value] if devices else [])
    ]
    if devices:
        lib.edgetpu_free_devices(devices)
    return found


def _opencl_platforms(lib: ctypes.CDLL) -> list[str]:
    count = ctypes.c_uint(0)
    lib.clGetPlatformIDs(0, None, ctypes.byref(count))
    platforms = (ctypes.c_void_p * count.value)()
    if count.value:
        lib.clGetPlatformIDs(count, platforms, None)
    return [_opencl_name(lib, platform) for platform in platforms]


def _opencl_name(lib: ctypes.CDLL, platform: int | None) -> str:
    text = ctypes.create_string_buffer(256)
    cl_platform_name = 0x0902
    lib.clGetPlatformInfo(ctypes.c_void_p(platform), cl_platform_name, ctypes.c_size_t(256), text, None)
    return text.value.decode("utf-8", "replace")


def main(name: str, *arguments: str) -> None:
    # Runtimes write to file descriptor 1 too: the answer keeps it for itself, they get the error output.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answer_to, "w") as output:
        json.dump(_answer(PROBES[name], arguments), output)


def _answer(probe: Callable[..., dict[str, Any]], arguments: tuple[str, ...]) -> dict[str, Any]:
    try:
        return {"status": "ok", "facts": probe(*arguments)}
    except (ModuleNotFoundError, FileNotFoundError) as error:
        return {"status": "missing", "detail": str(error)}
    except Exception as error:
        return {"status": "failed", "detail": f"{type(error).__name__}: {error}"}
