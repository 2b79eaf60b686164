"""The network's exported graph, and how it is built again in another framework, operator by operator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from edgepose_trainer.export.prepare import Traced

Operators = Mapping[str, Callable[..., Any]]
"""A framework's counterparts of torch's operators, by their names ("aten.conv2d.default"). They take what those take:
weights come as numpy arrays, all else as the framework's own tensors, axes and layouts as torch counts them."""


def export_graph(traced: Traced) -> Any:
    """torch's exported program of the network."""
    import torch

    with torch.inference_mode():
        return torch.export.export(traced.module, (traced.example,), strict=False)


def replay(program: Any, operators: Operators, images: Any) -> list[Any]:
    """The program's outputs for the pictures, computed by other operators.

    Raises NotImplementedError for an operator that no network of this trainer had until now.
    """
    weights = {
        spec.arg.name: program.state_dict[spec.target].numpy()
        for spec in program.graph_signature.input_specs
        if spec.target is not None
    }
    values: dict[Any, Any] = {}

    def value(argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [value(part) for part in argument]
        return values.get(argument, argument) if hasattr(argument, "name") else argument

    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = weights.get(node.name, images)
        elif node.op == "output":
            found: list[Any] = value(node.args[0])
            return found
        elif _name(node) in operators or node.target is operator.getitem:
            run = operators.get(_name(node), operator.getitem)
            values[node] = run(*map(value, node.args), **node.kwargs)
        else:
            raise NotImplementedError(f"the operator {node.target} has no counterpart yet in this format")
    raise ValueError("the exported graph has no output")


def _name(node: Any) -> str:
    """The operator; one that works in place is its twin: activations do, on what nothing else reads."""
    return str(node.target).replace("_.", ".")
