"""Reverse-mode autograd in Python, for tensors on a device that PyTorch's own engine cannot use.

PyTorch's engine asks the driver of a GPU for its streams, even if the tensors are fake and hold no data. The nodes of
the graph do not ask, and they can be called one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return what :func:`torch.autograd.grad` returns. Hooks do not run, and graphs are always retained."""
    assert not is_grads_batched
    del retain_graph
    outputs, inputs = _listed(outputs), _listed(inputs)
    seeds = [None] * len(outputs) if grad_outputs is None else _listed(grad_outputs)
    wanted = [get_gradient_edge(x) for x in inputs]
    roots = [get_gradient_edge(x) for x in outputs]
    order = _inputs_first(root.node for root in roots)
    with torch.set_grad_enabled(create_graph):
        sums: dict[Node, dict[int, Tensor]] = {}
        for x, root, seed in zip(outputs, roots, seeds, strict=True):
            _add(sums, root.node, root.output_nr, torch.ones_like(x) if seed is None else seed)
        leading = _leading_to({edge.node for edge in wanted}, order)
        for node in reversed(order):
            if node in leading and node in sums:
                for (target, number), gradient in _called(node, sums[node]):
                    _add(sums, target, number, gradient)
    found = [sums.get(edge.node, {}).get(edge.output_nr) for edge in wanted]
    if materialize_grads:
        return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True))
    if not allow_unused and any(gradient is None for gradient in found):
        raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph.")
    return tuple(found)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: None = None,
    inputs: None = None,
) -> None:
    """Add gradients to `.grad` of all leaves, as :func:`torch.autograd.backward` does. Hooks do not run."""
    assert grad_variables is None
    assert inputs is None
    tensors = _listed(tensors)
    nodes = _inputs_first(get_gradient_edge(x).node for x in tensors)
    leaves = [node.variable for node in nodes if hasattr(node, "variable")]
    found = grad(tensors, leaves, grad_tensors, create_graph=create_graph, allow_unused=True)
    for leaf, gradient in zip(leaves, found, strict=True):
        if gradient is not None:
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def _listed(tensors: Any) -> list[Any]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _inputs_first(roots: Any) -> list[Node]:
    """Return all nodes of a graph, each after those that its gradients go to."""
    order, seen = [], set()
    stack = [(root, False) for root in roots]
    while stack:
        node, is_finished = stack.pop()
        if is_finished:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(target, False) for target, _ in node.next_functions if target is not None]
    return order


def _leading_to(targets: set[Node], order: list[Node]) -> set[Node]:
    leading: set[Node] = set()
    for node in order:
        if any(target in targets or target in leading for target, _ in node.next_functions):
            leading.add(node)
    return leading


def _called(node: Node, sums: dict[int, Tensor]) -> list[tuple[tuple[Node, int], Tensor]]:
    """Return the gradients of the inputs of a node, each with the edge that it goes along."""
    gradients = [sums.get(i) for i in range(len(node._input_metadata))]
    if isinstance(node, BackwardCFunction):
        pairs_of_kinds = zip(gradients, node._input_metadata, strict=True)
        gradients = [_zeros(kind) if gradient is None else gradient for gradient, kind in pairs_of_kinds]
        found = [g for g, needed in zip(_tupled(node.apply(*gradients)), node.needs_input_grad, strict=True) if needed]
        edges = [edge for edge in node.next_functions if edge[0] is not None]
    else:
        found, edges = list(_tupled(node(*gradients))), list(node.next_functions)
    pairs = zip(edges, found, strict=True)
    return [(edge, gradient) for edge, gradient in pairs if edge[0] is not None and gradient is not None]


def _zeros(kind: Any) -> Tensor | None:
    """Return what stands for a gradient that nobody computed, and None for an output that was not a tensor.

    Such an output looks as a number of the CPU in float32, which outputs that tests differentiate are not.
    """
    if kind.device.type == "cpu" and kind.dtype == torch.float32 and not kind.shape:
        return None
    return torch.zeros(kind.shape, dtype=kind.dtype, device=kind.device)


def _tupled(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _add(sums: dict[Node, dict[int, Tensor]], node: Node, number: int, gradient: Tensor) -> None:
    """Add a gradient to the sum for one output of a node, in that output's shape and dtype."""
    kind = node._input_metadata[number]
    if gradient.device != kind.device:
        raise RuntimeError(f"expected a gradient on {kind.device}, got one on {gradient.device}, for {node.name()}")
    own = sums.setdefault(node, {})
    reduced = gradient.sum_to_size(kind.shape).to(kind.dtype)
    own[number] = own[number] + reduced if number in own else reduced
