"""Traced computations: the operators that a function of tensors calls, without the Python around them.

`torch.func.vmap` turns a function of one model into one of N; its dispatch costs as much as a small model's arithmetic, and is
paid once here. Operators are then replaced by faster ones of the same result up to the order of floating-point sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

ops = torch.ops.aten

SMALL_ROW = 64
"""Elements of a row below which torch's softmax kernels are slower by rows than by columns."""


def traced(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """Return a function with the operators that `function` calls for arguments of these shapes.

    Args:
        function: Of tensors, and lists and dictionaries of them. It is called, so what it changes in place is changed.
        examples: Arguments. Numbers, and values that Python sees, are constants in the result.

    Raises:
        Exception: What the function raises, or an operator has no batched form.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop because")  # the speed is measured
        module = make_fx(function)(*examples)
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_function":
            _simplify(graph, node)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    return module


def _simplify(graph: Graph, node: Node) -> None:
    source = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    match node.target:
        case ops.view.default | ops._unsafe_view.default | ops.expand.default:
            if source and _shape(node) == _shape(source):
                _replace(graph, node, source)
        case ops.transpose.int:
            if source and source.target == ops.transpose.int and node.args[1:] == source.args[1:]:
                _replace(graph, node, source.args[0])
        case ops.mul.Scalar:  # by the factor of `addmm`
            if source and node.args[1] == 1 and not any(_changes(user) for user in node.users):
                _replace(graph, node, source)
        case ops.add.Tensor:
            _fuse_bias(graph, node)
        case ops._log_softmax.default:
            _by_columns(graph, node, 1)
        case ops._log_softmax_backward_data.default:
            _by_columns(graph, node, 2)


def _fuse_bias(graph: Graph, node: Node) -> None:
    """Add a bias while multiplying, as a single model's `addmm` does."""
    if node.kwargs or len(node.args) != 2:
        return
    for bias, product in (node.args, node.args[::-1]):
        if (
            isinstance(bias, Node)
            and isinstance(product, Node)
            and product.target == ops.bmm.default
            and len(product.users) == 1
            and len(_shape(bias)) == 3
            and _shape(node) == _shape(product)
        ):
            with graph.inserting_before(node):
                fused = graph.call_function(ops.baddbmm.default, (bias, *product.args))
            fused.meta = node.meta
            _replace(graph, node, fused)
            graph.erase_node(product)
            return


def _by_columns(graph: Graph, node: Node, tensors: int) -> None:
    """Compute over the last dimension as over the one before it, if rows are short."""
    shape, dim = _shape(node), node.args[tensors]
    assert isinstance(dim, int)
    if len(shape) < 2 or dim % len(shape) != len(shape) - 1 or shape[-1] > SMALL_ROW:
        return
    with graph.inserting_before(node):
        turned = [
            graph.call_function(
                ops.clone.default,
                (graph.call_function(ops.transpose.int, (argument, -1, -2)),),
                {"memory_format": torch.contiguous_format},
            )
            for argument in node.args[:tensors]
        ]
        found = graph.call_function(node.target, (*turned, len(shape) - 2, *node.args[tensors + 1 :]))  # type: ignore[arg-type]
        back = graph.call_function(ops.transpose.int, (found, -1, -2))
    back.meta = node.meta
    _replace(graph, node, back)


def _replace(graph: Graph, node: Node, by: Any) -> None:
    node.replace_all_uses_with(by)
    graph.erase_node(node)


def _shape(node: Node) -> tuple[int, ...]:
    found = node.meta.get("tensor_meta")
    return tuple(found.shape) if found is not None else ()


def _changes(node: Node) -> bool:
    """Whether an operator changes its first argument."""
    return node.op == "call_function" and getattr(node.target, "__name__", "").split(".")[0].endswith("_")
