"""The networks that computed scores, by the autograd graph of the scores."""

from __future__ import annotations

from torch import Tensor, nn


def parameters_of(scores: Tensor) -> frozenset[int]:
    """Return the identities of the trained parameters from which scores were computed."""
    found, seen, waiting = set(), set(), [scores.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            found.add(id(variable))
        waiting.extend(function for function, _ in node.next_functions)
    return frozenset(found)


def are_from_another_network(scores: Tensor, networks: list[frozenset[int]]) -> bool:
    """Return whether scores were computed by an earlier one of several networks, and not by the last one.

    Nothing is known of networks that are frozen.

    Args:
        scores: the scores, of which other networks may have computed the samples.
        networks: the parameters of each network, of the last one at the end.
    """
    *earlier, last = networks
    others = [network for network in earlier if not network <= last]  # a part of the last network is no other one
    if not others:  # also not a walk through the graph, in each step of a generator
        return False
    own = parameters_of(scores)
    return not last <= own and any(other <= own for other in others)
