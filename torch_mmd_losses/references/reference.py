"""A reference sample that does not change, prepared once for many batches of fake samples."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.hand_written_gradients import eager_only, kept_tensors
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.batch import LOCAL
from torch_mmd_losses.pairs.distributed import GlobalBatch, refuse
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.references import samples
from torch_mmd_losses.references.batches import Samples, alike, checked
from torch_mmd_losses.references.building import KINDS, Kind, Options, built
from torch_mmd_losses.references.deregularised_reference import DeregularisedReference
from torch_mmd_losses.references.form import stand_in
from torch_mmd_losses.references.pointwise import PointwiseReference
from torch_mmd_losses.references.processes import Part
from torch_mmd_losses.types import Estimator


class MMDReference(PointwiseReference, DeregularisedReference):
    r"""A reference sample that does not change, prepared once to compute MMD^2 from many batches of fake samples.

    In training on fixed features, the real sample is the same in every step. A reference uses the whole sample. The
    loss is then free of the noise of a real batch, and the term that depends on the real sample alone is computed once.

    .. math:: \mathrm{MMD}^2 = \sum_{ij} w_i w_j k(r_i, r_j) - 2 \sum_i w_i E\,k(r_i, g) + E\,k(g, g')

    Here, :math:`r` are the rows of the reference, :math:`w` are their weights, divided by their sum, and :math:`g` are
    fake samples. Pairs of fake samples are always evaluated exactly, except by `kind="fourier"`:

    ===========  ==============================================  =======================================
    kind         stored for N rows                               time of a call with n samples
    ===========  ==============================================  =======================================
    `"exact"`    all rows and weights                            :math:`O((N + n) n d)`, memory of a tile
    `"nystrom"`  M landmarks, two sums for each                  :math:`O((M + n) n d)`
    `"fourier"`  F frequencies, two means for each               :math:`O(F n d)`, memory :math:`O(F n)`
    ===========  ==============================================  =======================================

    - `"exact"`: the value and the gradient of :func:`mmd2` with all rows. Rows stay in the dtype and on the device in
      which they were given, and are converted and moved part by part, so rows in half precision or on the host need not
      fit into the memory of a GPU in float32. A tensor is not copied: do not change it.
    - `"nystrom"`: the mean embedding of the rows is projected onto the span of the landmarks :math:`Z`:
      :math:`E\,k(g, r) \approx k(g, Z)\,\alpha` with :math:`\alpha = (k(Z, Z) + \delta I)^{-1} E\,k(Z, r)`. It is built
      in float64, and :math:`\delta` is 1e-6 times the mean of the diagonal. :meth:`error_bound` is a certificate. With
      features :math:`\psi(x) = (k(Z, Z) + \delta I)^{-1/2} k(Z, x)` the same number is
      :math:`\langle \psi(g), E\,\psi(r) \rangle`.
    - `"fourier"`: :math:`k(0) / F \sum_f \lvert \varphi_r(\omega_f) - \varphi_g(\omega_f) \rvert^2`, as in
      :func:`mmd2_fourier`, but with the same frequencies in every call. All three terms use these features, so equal
      samples have a distance of zero. A generator can learn errors that these frequencies do not detect.

    Sums over rows are float64. The order of the rows and their division into batches affect only rounding and random
    choices. Buffers keep their dtype in `.half()` and `.to(dtype)`, and follow the module to other devices.
    `state_dict` is complete: it can be loaded into any reference, of other data or size, with the same kind and the
    same kind of kernel.

    Weights may be negative, for guidance: with weights :math:`\alpha / m` for the rows of :math:`p` and
    :math:`-(\alpha - 1) / m'` for those of :math:`u`, fake samples are moved towards :math:`\alpha p - (\alpha - 1) u`.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1. Or an
            iterable of such batches, for example a list or a :class:`torch.utils.data.DataLoader`.
        kernel: any kernel for `kind="exact"`, a positive definite kernel for `"nystrom"`, sums and multiples of
            Gaussian and rational quadratic kernels for `"fourier"`. The bounds of an :class:`RBFBKernel` are ignored.
            The reference keeps a copy of the kernel, whose numbers must not be changed.
        kind: `"exact"`, `"nystrom"` or `"fourier"`, see above.
        landmarks: for `kind="nystrom"`, the landmarks `(M, d)`, for example centres of clusters, or their number. With
            a number, the landmarks are random rows of `real`, or all rows if there are not more, and an iterable is
            read twice. None means 4096.
        frequencies: for `kind="fourier"`, the number :math:`F` of frequencies. Each has a cosine and a sine. None means
            4096.
        self_rows: for `"exact"` and `"nystrom"`, the largest number of rows over whose pairs the self term
            :math:`\sum_{ij} w_i w_j k(r_i, r_j)` is averaged. If there are more rows, this many of them are chosen at
            random, and the estimate is unbiased. Only the remainder that landmarks leave out is estimated; for
            `"exact"`, the landmarks are up to 1,024 random rows, unless the kernel is not positive definite. None means
            all rows for `"exact"`, at a cost of :math:`O(N^2 d)` when the self term is first needed, and 20,000 for
            `"nystrom"`. The self term does not affect gradients.
        weights: weights `(m,)` of either sign, whose sum is not zero; for an iterable of batches, an iterable with one
            tensor for each batch. None gives all rows the same weight.
        generator: source of the random numbers for landmarks, frequencies and `self_rows`. None is PyTorch's default
            generator.

    Raises:
        TypeError: if `real` is neither a tensor of scores nor an iterable of them, weights are not tensors in the same
            way, `kernel` is not a :class:`Kernel`, an option is not an integer where it should be, `generator` is not a
            :class:`torch.Generator`, or the spectral measure of the kernel is unknown for `"fourier"`.
        ValueError: if scores or weights are empty, not floating-point, not finite or of different shape, dtype or
            device; if the sum of weights is zero; if the kernel has trained parameters, or is not positive definite for
            `"nystrom"`; if `kind` is unknown, an option is given that has no effect on the kind, or an option is out of
            range; if landmarks should be chosen from an iterator, which can be read only once.

    Warns:
        UsageWarning: if landmarks leave out more than a quarter of the squared norm of the mean embedding.

    Example:
        >>> features, fake = torch.randn(2000, 4), torch.randn(100, 4) + 0.5
        >>> reference = MMDReference(features, RBFKernel(2.0))
        >>> reference.mmd2(fake)
        tensor(0.0708)
        >>> options = {"kind": "nystrom", "landmarks": 200}
        >>> landmarks = MMDReference(features.split(500), RBFKernel(2.0), **options)
        >>> error = (landmarks.mmd2(fake) - reference.mmd2(fake)).abs()
        >>> bool(error <= 2 * landmarks.error_bound(fake))
        True

    References:
        Chatalic et al. (2022), *Nystrom kernel mean embeddings*; Rahimi and Recht (2007). The code of Representation
        Distribution Matching (arXiv 2607.02375) trains one-step generators with landmarks.
    """

    def __init__(
        self,
        real: Samples,
        kernel: Kernel,
        *,
        kind: Kind = "exact",
        landmarks: int | Tensor | None = None,
        frequencies: int | None = None,
        self_rows: int | None = None,
        weights: Samples | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_kernel(kernel)
        checks.one_of("kind", kind, KINDS)
        checks.random_generator(generator)
        self.kind = kind
        self.part = Part(0, 1)
        options = Options(landmarks, frequencies, self_rows, generator)
        with kept_tensors():
            self.form = built(kind, real, weights, kernel, options)

    @property
    def self_term(self) -> Tensor:
        """The mean kernel value of two rows of the reference, with the pairs of a row and itself.

        It is computed when this attribute or :meth:`mmd2` first needs it, and kept in the state dict. Read it once
        before :meth:`mmd2` is compiled or used in a transform of `torch.func`.
        """
        return self.form.mean_within("biased")

    def update(self, batch: Tensor, *, weights: Tensor | None = None) -> None:
        """Add rows to the reference.

        For any order and sizes of the batches, the result is the same as if all rows had been given at once, except for
        rounding in float64 and for landmarks chosen from the first rows. With `kind="exact"`, each call copies the
        rows, so pass an iterable to the constructor rather than calling this method many times.

        Args:
            batch: scores `(m, d)`, of the dtype and on the device of the first rows.
            weights: weights `(m,)`, on the scale of the earlier weights; None means ones.

        Raises:
            TypeError: if an argument is not a tensor.
            ValueError: if scores or weights are wrong, see :class:`MMDReference`, or if the reference is a shard. The
                reference then does not change.
        """
        self.part.check_is_whole("batch", "to add rows to")
        rows = checked("batch", batch, "weights", weights)
        alike("real", self.form.like, "batch", rows.scores)
        with kept_tensors(), full_precision(rows.scores.device):
            self.form.include(rows)
            self.form.ready()

    def mmd2(self, fake: Tensor, *, estimator: Estimator = "biased") -> Tensor:
        r"""Return MMD^2 between the reference and fake samples.

        .. math::

            \sum_{ij} w_i w_j k(r_i, r_j) - \frac{2}{n} \sum_{ij} w_i k(r_i, g_j)
            + \frac{1}{n^2} \sum_{ij} k(g_i, g_j)

        with weights that add up to one. The unbiased estimator leaves out the pairs of a sample with itself, and
        divides by :math:`1 - \sum_i w_i^2` and :math:`n (n - 1)` instead.

        Args:
            fake: scores `(n, d)` in any floating-point dtype; `(n,)` and `(n, ...)` are flattened from dim 1.
            estimator: `"biased"` or `"unbiased"`. The default is biased, because losses that are divided by their own
                value need a value that is not almost zero for equal distributions.

        Returns:
            A scalar, float64 for float64 scores and float32 for all others. Differentiable twice. With
            `estimator="biased"` and a positive definite kernel it is >= 0 except for rounding.

        Raises:
            TypeError: if `fake` is not a tensor.
            ValueError: if `fake` has another dimension than the reference, is empty or not floating-point, or has too
                few samples for the estimator; if the estimator is unknown, or cannot be unbiased with the weights of
                the reference.
            RuntimeError: if the reference is a shard, and there are not as many processes as shards.

        Warns:
            UsageWarning: if all values of the kernel between some rows and fake samples are zero, or all are
                :math:`k(a, a)`, as in :func:`mmd2`.
        """
        if self.part.world > 1:
            value, fake = self._joint_mmd2(fake, estimator)
        else:
            fake = self._checked("fake", fake)
            samples.check_estimator(estimator, self.form, len(fake))
            with full_precision(fake.device):
                value = self.form.mmd2(fake, estimator, LOCAL).to(fake.dtype)
        if usage_warnings.is_first_call_from_place():
            samples.warn_of_bandwidth(self.form, fake)
        return value

    forward = mmd2

    @eager_only
    def _joint_mmd2(self, fake: Tensor, estimator: Estimator) -> tuple[Tensor, Tensor]:
        """Return MMD^2 for the fake samples of all processes, and those of this one as a matrix."""
        self.part.check_processes()
        try:
            scores = self._checked("fake", fake)
            checks.with_values({"fake": scores}, "which the processes exchange")
            samples.check_estimator(estimator, self.form, None)
        except Exception:
            refuse((fake,))
            raise
        with full_precision(scores.device):
            value = self.form.mmd2(scores, estimator, GlobalBatch(stand_in(scores), scores))
        return value.to(scores.dtype), scores

    def error_bound(self, fake: Tensor) -> Tensor:
        r"""Return a bound on the error of the mean of :meth:`attraction`.

        The error of :meth:`mmd2` is at most twice as large, if the self term is exact. The bound is zero for
        `kind="exact"`. For landmarks :math:`Z`, with the mean embeddings :math:`\mu_g = E\,k(Z, g)` and
        :math:`\mu_r = \sum_i w_i k(Z, r_i)`,

        .. math::

            \lvert E\,k(g, r) - E\,k(g, Z)\,\alpha \rvert \le \sqrt{E\,k(g, g') - \mu_g^T K_\delta^{-1} \mu_g}
            \sqrt{k_{rr} - \mu_r^T K_\delta^{-1} \mu_r},

        because :math:`I - \Phi^T K_\delta^{-1} \Phi` is positive semi-definite for the feature maps
        :math:`\Phi` of the landmarks. If the self term :math:`k_{rr}` is an estimate, so is the bound.

        Args:
            fake: scores `(n, d)`, see :meth:`mmd2`.

        Returns:
            A scalar >= 0 without a graph.

        Raises:
            TypeError: if `fake` is not a tensor, or for `kind="fourier"`.
            ValueError: as in :meth:`mmd2`.
        """
        return self.form.error_bound(self._checked("fake", fake).detach())

    def shard(self, rank: int, world: int) -> MMDReference:
        """Return the part of a reference that one of several processes keeps.

        An exact reference is divided: process `rank` keeps every `world`-th row. Other kinds are small, and each
        process keeps everything. The samples that :meth:`mmd2` of a shard gets are then those of this process, and the
        batch is that of all processes of the default group together. The value is the same in all processes. Averaging
        the gradients over the processes, as `DistributedDataParallel` does, gives its gradient. Every process has to
        make the same calls and differentiate the results equally often. This includes calls of :meth:`attraction`,
        :meth:`witness` and :meth:`sums`, which are evaluated at the points of each process.

        Args:
            rank: number of the process, from 0.
            world: number of processes.

        Raises:
            TypeError: if `rank` or `world` is not an integer.
            ValueError: if one of them is out of range, or the reference is a shard.
        """
        world = checks.whole_number("world", world, least=1)
        rank = checks.whole_number("rank", rank, least=0, most=world - 1)
        self.part.check_is_whole("rank, world", "to divide")
        if world == 1:
            return copy.deepcopy(self)
        share = copy.copy(self)
        share._modules = {"form": self.form.share(rank, world)}
        share.part = Part(rank, world)
        return share
