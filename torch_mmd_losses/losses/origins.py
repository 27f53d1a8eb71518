"""The networks that computed scores, by the autograd graph of the scores."""

from __future__ import annotations

from weakref import ReferenceType, ref

from torch import Tensor, nn

Network = frozenset[ReferenceType[nn.Parameter]]
"""The trained parameters of a network. Two references are equal only if they are to the same parameter."""


def parameters_of(scores: Tensor) -> Network:
    """Return the trained parameters from which scores were computed."""
    found, seen, waiting = set(), set(), [scores.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            found.add(ref(variable))
        waiting.extend(function for function, _ in node.next_functions)
    return frozenset(found)


def are_from_another_network(scores: Tensor, networks: list[Network]) -> bool:
    """Return whether scores were computed by an earlier one of several networks, and not by the last one.

    Networks that share a parameter count as one, because the graphs of a network that uses or trains other layers in
    each call, as with stochastic depth, look like those of two networks with a shared layer. Nothing is known of
    networks that were frozen, or are frozen by now.

    Args:
        scores: the scores, of which other networks may have computed the samples.
        networks: the parameters of each network, of the last one at the end.
    """
    *earlier, last = networks
    others = [network for network in earlier if network and network.isdisjoint(last)]
    if not others or not _is_trained(last):  # also not a walk through the graph, in each step of a generator
        return False
    own = parameters_of(scores)
    return own.isdisjoint(last) and any(other <= own for other in others)


def _is_trained(network: Network) -> bool:
    parameters = [reference() for reference in network]
    return bool(parameters) and all(each is not None and each.requires_grad for each in parameters)
