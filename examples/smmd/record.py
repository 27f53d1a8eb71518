"""What is logged of a training of Arbel et al.: losses, norms, learning rates, the KID tests, and singular values."""

from __future__ import annotations

from dcgan.gan import gradient_norm
from dcgan.record import Line, check_finite

from smmd.gan import GAN, Step
from smmd.singular_values import singular_values

SPECTRA = "singular_values"
"""Name of the log of the singular values, and of their entry in its lines."""


def measure(gan: GAN, step: Step, iterations_per_second: float) -> Line:
    """Return the line of the log for the last iteration; all processes have to ask.

    Raises:
        NotFiniteError: if a number of it is infinite or no number.
    """
    line = {"iteration": gan.iteration, **health(gan, step)}
    for name, adam in (("discriminator", gan.adam_d), ("generator", gan.adam_g)):
        line[f"lr_{name}"] = adam.param_groups[0]["lr"]
    if gan.outcome is not None:
        line |= {"kid_p_value": gan.outcome.p_value, "kid_failures": gan.outcome.failures}
    return line | {"iterations_per_second": round(iterations_per_second, 2)}


def health(gan: GAN, step: Step) -> Line:
    """Return the losses, means over the processes, and the norms of the gradients after each part was clipped.

    Raises:
        NotFiniteError: if one of them is infinite or no number.
    """
    line: Line = {
        "loss_discriminator": gan.group.mean(step.loss_discriminator).item(),
        "loss_generator": gan.group.mean(step.loss_generator).item(),
        "gradient_norm_discriminator": gradient_norm(gan.discriminator).item(),
        "gradient_norm_generator": gradient_norm(gan.generator).item(),
    }
    check_finite(line, gan.iteration, "a larger --scale-weight or --gradient-penalty for the losses that have one, ")
    return line


def inspect(gan: GAN) -> dict[str, Line]:
    """Return a line with the singular values of the critic's layers, if they are due."""
    chosen, iteration = gan.configuration, gan.iteration
    if iteration in (1, chosen.iterations) or iteration % chosen.spectrum_every == 0:
        return {SPECTRA: {"iteration": iteration, SPECTRA: singular_values(gan.discriminator)}}
    return {}
