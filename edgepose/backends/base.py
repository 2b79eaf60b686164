"""What every runtime looks like to the rest of edgepose: load, tensors' specs, infer, close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgepose.contract import Quantization


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor as the runtime reports it. shape: None for a dynamic dimension. dtype: a numpy name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: Quantization | None = None


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

    def close(self) -> None:
        """Frees the runtime's memory; safe to call twice."""
