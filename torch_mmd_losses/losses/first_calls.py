"""Warnings of legal uses of a loss that are almost surely mistakes, in the first calls of a loss object."""

from __future__ import annotations

import re

from torch import Tensor

from torch_mmd_losses import usage_warnings
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.losses import origins
from torch_mmd_losses.pairs import reach

FIRST = 3
"""Number of calls of a loss object that are examined. Later calls cost nothing."""

MANY = 0.99
"""Share of saturated pairs above which there is hardly a gradient."""

REARRANGING = re.compile(
    "(Clone|Permute|ReshapeAlias|Select|Slice|Split|SplitWithSizes|Squeeze|T|ToCopy|Transpose|Unbind|UnsafeView"
    "|Unsqueeze|View)Backward[0-9]"
)
"""Names of the autograd nodes of operations that do not change values."""


OUTPUTS_OF_A_CLASSIFIER = {"SigmoidBackward0": "sigmoid", "SoftmaxBackward0": "softmax"}
"""Names of the autograd nodes of functions that turn scores into probabilities, and names of these functions."""


class FirstCalls:
    """Counts how many calls of a loss object are still examined. `state_dict` does not contain the counts."""

    def __init__(self) -> None:
        self.losses = FIRST
        self.discriminator = FIRST
        self.terms = FIRST
        self.constant: str | None = None  # the side that alone had no gradient in the last discriminator's loss


def warn_of_one_score(name: str, real: Tensor) -> None:
    """Warn if there is one score per sample."""
    if real.shape[1:].numel() == 1:
        usage_warnings.warn(
            "one score",
            f"{name}: expected several scores per sample for lambda_ >= 0 (the papers use 16), got scores of shape "
            f"{tuple(real.shape)}, one per sample. If the discriminator outputs more, end it with flatten(1): "
            ".view(-1) and .squeeze() turn the scores of a sample into samples",
        )


def warn_of_probabilities(name: str, real: Tensor) -> None:
    """Warn if the autograd graph shows that the real scores are the output of a sigmoid or of a softmax."""
    node = real.grad_fn
    while node is not None and REARRANGING.fullmatch(node.name()):
        node = node.next_functions[0][0]
    function = None if node is None else OUTPUTS_OF_A_CLASSIFIER.get(node.name())
    if function is None:
        return
    remedy = {
        "sigmoid": "Remove the sigmoid from the discriminator: its scores are not probabilities, as in BCELoss",
        "softmax": "Class probabilities are not scores: if the discriminator also classifies, pass the output of its "
        "other head, and end that head without a softmax",
    }
    usage_warnings.warn(
        function,
        f"{name}: expected scores without a {function}, got real scores from a {function}, which are within (0, 1) at "
        f"any scale= of conv_spectral_norm. {remedy[function]}",
    )


def is_discriminator(kernel: Kernel) -> bool:
    """Return whether a kernel learns from constant samples too, for example through a network of the user's.

    Hyper-parameters of the library's kernels are trained along with a discriminator.
    """
    trained = [part for part in kernel.modules() if any(each.requires_grad for each in part.parameters(recurse=False))]
    return not all(isinstance(part, Kernel) and part._trainable for part in trained)


def warn_of_constant_scores(name: str, calls: FirstCalls, real: Tensor, fake: Tensor) -> None:
    """Warn if one side has gradients and the other has none, twice in a row.

    Two discriminator's losses that each detach the other side have together the gradient of one loss, so a single call
    does not show the mistake.
    """
    constant = None
    if real.requires_grad != fake.requires_grad:
        constant = "fake" if real.requires_grad else "real"
    if constant is not None and constant == calls.constant:
        other, remedy = {
            "real": ("fake", "Pass D(real), not scores that are detached or those of the generator's step"),
            "fake": ("real", "Pass D(fake.detach()): detach the samples, not their scores"),
        }[constant]
        usage_warnings.warn(
            "constant scores",
            f"{name}: expected real and fake scores that require gradients in the discriminator's loss, got {constant} "
            f"scores that do not, twice in a row. The discriminator then learns from the {other} scores only. {remedy}",
        )
    calls.constant = constant


def warn_of_another_discriminator(name: str, networks: list[origins.Network], fake: Tensor) -> None:
    """Warn if the remembered real scores are those of another discriminator than the fake scores."""
    if networks and origins.are_from_another_network(fake, networks):
        usage_warnings.warn(
            "another discriminator",
            f"{name}: expected fake scores of the discriminator that computed the remembered real scores, got those of "
            "another one. Only the real scores of the last discriminator's loss are remembered. Create a loss for each "
            "discriminator and each scale, or pass real=",
        )


def warn_of_dead_loss(name: str, kernel: Kernel, real: Tensor, fake: Tensor) -> None:
    """Warn if all gradients are exactly zero because the kernel does not reach from any score to another."""
    if reach.is_readable(real, fake) and reach.has_no_gradient(kernel, real, fake):
        usage_warnings.warn(
            "dead loss",
            f"{name}: expected gradients, got gradients of exactly zero for all scores: "
            f"{reach.explanation(kernel, real, fake, of_discriminator=True)}",
        )


def warn_of_saturation(name: str, kernel: Kernel, real: Tensor, fake: Tensor, saturated: Tensor) -> None:
    """Warn if nearly all pairs are saturated although their scores differ, and although no bound clamps them."""
    if not reach.is_readable(real, fake) or not float(saturated) > MANY:
        return
    if reach.saturated_share(kernel, real, fake) > MANY:
        usage_warnings.warn(
            "saturated",
            f"{name}: expected kernel values between zero and the peak of the kernel, got {float(saturated):.1%} "
            f"saturated pairs: {reach.explanation(kernel, real, fake, of_discriminator=True)}",
        )
