"""What every runtime looks like to the rest of edgepose: load, tensors' specs, infer, close."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgepose.options import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepose.contract import Quantization


class TensorSpec(NamedTuple):
    """One tensor as the runtime reports it. shape: None for a dynamic dimension. dtype: a numpy name.

    aliases: other names that the runtime has for the same tensor.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: Quantization | None = None
    aliases: tuple[str, ...] = ()


class Backend(Protocol):
    """A loaded model in one runtime; used by one thread at a time."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """The writable, C-contiguous array that `infer` reads: the runtime's own memory where it allows that.

        Good until the next call with another shape. Raises ValueError for a shape that the model does not take.
        """

    def infer(self) -> list[np.ndarray[Any, Any]]:
        """Runs the model on the input buffer. The arrays, in the order of `outputs`, are good until the next call."""

    def select_outputs(self, order: Sequence[int]) -> None:
        """From now on `outputs` and `infer` give only these of the present outputs, in this order."""

    def close(self) -> None:
        """Frees the runtime's memory; safe to call twice."""


class Options(NamedTuple):
    """How a model is to be run, as the caller asked; each runtime says in an error what it does not take.

    device: "auto", "cpu", or what the runtime offers. threads: None is the runtime's own default. precision: None is
    the runtime's own default, "f32" exact, "f16" and "bf16" where the runtime takes them. verbose: let the runtime
    print.
    """

    device: str = "auto"
    threads: int | None = None
    precision: str | None = None
    verbose: bool = False


def check_ends(path: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raises ValueError for a model without an input or without an output, which runtimes load as well."""
    if not inputs or not outputs:
        raise ValueError(
            f"{path}: got a model with {len(inputs)} inputs and {len(outputs)} outputs, expected some of each"
        )


def check_shape(tensor: TensorSpec, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a shape that the tensor does not take."""
    fits = len(shape) == len(tensor.shape) and all(
        got > 0 and want in (None, got) for got, want in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in tensor.shape)
        raise ValueError(f"got an input of shape {tuple(shape)}, expected ({wanted}) for the input {tensor.name!r}")


def unknown_device(device: str, runtime: str, known: Sequence[str]) -> ValueError:
    hint = did_you_mean(device, known)
    return ValueError(f"got the device {device!r}, expected one of {', '.join(known)} for {runtime}{hint}")


def unsupported_precision(precision: str, runtime: str, known: Sequence[str]) -> ValueError:
    return ValueError(
        f"got precision={precision!r}, {runtime} takes {', '.join(repr(name) for name in known)} or None (its default)"
    )


def what_it_says(error: BaseException) -> str:
    """What a runtime says went wrong, shortened, without its stack of source files."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    text = " ".join(telling[:2] if telling else [line for line in lines if line])
    return (text or type(error).__name__)[:300]
