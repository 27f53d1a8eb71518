"""The methods of a reference that return a value for each point."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.pairs.kernel_products import kernel_products
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.references.batches import ones_like_rows
from torch_mmd_losses.references.kept import KeptForm


class PointwiseReference(KeptForm):
    """Base class of :class:`torch_mmd_losses.MMDReference`, with the methods that return a value for each point."""

    def attraction(self, fake: Tensor) -> Tensor:
        r"""Return the mean kernel value of each fake sample with the reference, :math:`\sum_i w_i k(r_i, g)`.

        Args:
            fake: scores `(n, d)`, see :meth:`mmd2`.

        Returns:
            Values `(n,)`, in the dtype of :meth:`mmd2` and differentiable twice.

        Raises:
            TypeError, ValueError, RuntimeError: as in :meth:`mmd2`.
        """
        with self._announced_errors(fake):
            fake = self._checked("fake", fake)
        with full_precision(fake.device):
            return self.form.attraction(fake).to(fake.dtype)

    def witness(self, points: Tensor, fake: Tensor) -> Tensor:
        r"""Return the witness function of MMD at points, :math:`\sum_i w_i k(r_i, t) - E\,k(g, t)`.

        Args:
            points: scores `(p, d)`, see :meth:`mmd2`.
            fake: scores `(n, d)`, likewise, of the dtype and on the device of `points`.

        Returns:
            Values `(p,)` of either sign, as in :func:`witness`.

        Raises:
            TypeError, ValueError, RuntimeError: as in :meth:`mmd2` and :func:`witness`.
        """
        with self._announced_errors(points):
            points, fake = checks.same_space("points", points, "fake", fake)
            points = self._checked("points", points)
        with full_precision(points.device):
            share = (ones_like_rows(fake) / len(fake)).view(1, -1, 1)
            of_fake = kernel_products(points.unsqueeze(0), fake.unsqueeze(0), share, self.kernel)[0, :, 0]
            return (self.form.attraction(points) - of_fake).to(points.dtype)

    def sums(self, points: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the means of `k(t, r)` and `k(t, r) r` over the reference, for barycentres and drifts.

        .. math:: \sum_i w_i k(r_i, t), \qquad \sum_i w_i k(r_i, t)\, r_i

        Args:
            points: scores `(p, d)`, see :meth:`mmd2`.

        Returns:
            `(p,)` and `(p, d)`, in the dtype of :meth:`mmd2` and differentiable twice. With an approximate reference,
            they may have the wrong sign: do not divide by values near zero.

        Raises:
            TypeError, ValueError, RuntimeError: as in :meth:`mmd2`.
        """
        with self._announced_errors(points):
            points = self._checked("points", points)
        with full_precision(points.device):
            values, vectors = self.form.sums(points)
            return values.to(points.dtype), vectors.to(points.dtype)
