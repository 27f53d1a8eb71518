"""The methods of a reference for the (de)-regularised MMD."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.references import deregularised
from torch_mmd_losses.references.kept import KeptForm


class DeregularisedReference(KeptForm):
    """Base class of :class:`torch_mmd_losses.MMDReference`, with the methods that need a factorised matrix."""

    def drmmd2(self, fake: Tensor, *, lambda_: float) -> Tensor:
        r"""Return the (de)-regularised MMD^2 of fake samples from the reference.

        .. math::

            \mathrm{DrMMD} = \frac{1 + \lambda}{\lambda} \Bigl(\mathrm{MMD}^2
                - v^T \bigl(K + \lambda W^{-1}\bigr)^{-1} v\Bigr), \qquad
            v_i = E\,k(r_i, g) - \sum_j w_j k(r_i, r_j)

        with the biased MMD^2, the kernel matrix :math:`K` of the rows, and their weights, which add up to one, on the
        diagonal of :math:`W`. The number is between MMD^2, for large :math:`\lambda`, and the chi-squared divergence
        from the reference, for small :math:`\lambda`. Directions in which the reference varies little have more weight
        than in MMD^2, so particles come nearer to their target.

        The matrix is factorised in float64 in the first call with a given :math:`\lambda`, and the factor for the last
        :math:`\lambda` is kept. For an exact reference of :math:`N` rows, this takes :math:`O(N^3)` time and about
        :math:`24 N^2` bytes, a third of which are kept, so it may have at most 16,384 rows. For landmarks, the
        embeddings and the covariance of the rows are projected onto the span of the landmarks. The part of MMD^2 that
        the landmarks leave out is multiplied by :math:`(1 + \lambda) / \lambda`. The covariance is that of the rows
        kept for the self term: all rows if there are at most `self_rows`.

        Args:
            fake: scores `(n, d)`, see :meth:`mmd2`. They are converted to float64.
            lambda_: the regularisation, above zero, on the scale of the kernel values. Make the first call with a new
                number outside of `torch.compile` and of transforms of `torch.func`.

        Returns:
            A scalar in the dtype of :meth:`mmd2`, >= 0 except for rounding, differentiable twice.

        Raises:
            TypeError: if `fake` is not a tensor, `lambda_` is not a number, or for `kind="fourier"`.
            ValueError: as in :meth:`mmd2`; if `lambda_` is not between 1e-30 and 1e30, if the reference is a shard,
                has negative weights or too many rows, or if the regularised matrix is not positive definite.
            RuntimeError: if the factor would be computed within a transform of `torch.func`.

        Example:
            >>> reference = MMDReference(torch.randn(500, 2), RBFKernel())
            >>> fake = torch.randn(100, 2) + 0.5
            >>> reference.drmmd2(fake, lambda_=0.1), reference.mmd2(fake)
            (tensor(0.5986), tensor(0.1153))

        References:
            Chen et al. (2024), *(De)-regularized Maximum Mean Discrepancy Gradient Flow*.
        """
        fake = self._checked("fake", fake)
        factor = self._factor(fake, lambda_)
        with full_precision(fake.device):
            return deregularised.value(factor, fake, self.form.kernel).to(fake.dtype)

    def drmmd_witness(self, points: Tensor, fake: Tensor, *, lambda_: float) -> Tensor:
        r"""Return the witness function of :meth:`drmmd2` at points.

        .. math::

            \frac{2 (1 + \lambda)}{\lambda} \Bigl(\sum_i w_i k(r_i, t) - E\,k(g, t)
                + k(t, R) \bigl(K + \lambda W^{-1}\bigr)^{-1} v\Bigr)

        with the rows :math:`R` and :math:`v` as in :meth:`drmmd2`. Its gradient at the fake samples is the velocity of
        the flow that minimises the divergence: :math:`-n` times the gradient of :meth:`drmmd2`. For large
        :math:`\lambda` the function is twice :meth:`witness`.

        Args:
            points: scores `(p, d)`, see :meth:`mmd2`.
            fake: scores `(n, d)`, likewise, of the dtype and on the device of `points`.
            lambda_: the regularisation, as in :meth:`drmmd2`.

        Returns:
            Values `(p,)` in the dtype of :meth:`mmd2`, differentiable twice, higher at the reference than at the fake
            samples.

        Raises:
            TypeError, ValueError, RuntimeError: as in :meth:`drmmd2`.
        """
        points, fake = checks.same_space("points", points, "fake", fake)
        points = self._checked("points", points)
        factor = self._factor(points, lambda_)
        with full_precision(points.device):
            return deregularised.witness(factor, points, fake, self.form.kernel).to(points.dtype)

    def _factor(self, like: Tensor, lambda_: float) -> deregularised.Factor:
        lambda_ = checks.hyperparameter("lambda_", lambda_)
        self.part.check_is_whole("world", "for drmmd2")
        return self.form.regularised(lambda_, like.device)
