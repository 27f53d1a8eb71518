"""Options and groups of pairs, as types for annotations."""

from __future__ import annotations

from typing import Literal, get_args

Estimator = Literal["unbiased", "u_statistic", "biased"]
"""The pairs that an estimator of MMD^2 averages over, see :func:`torch_mmd_losses.mmd2`."""

ESTIMATORS: tuple[str, ...] = get_args(Estimator)

Scale = Literal["practical", "exact"]
"""The form of the scale in :class:`torch_mmd_losses.ScaledMMDLoss`."""

SCALES: tuple[str, ...] = get_args(Scale)

Method = Literal["conv", "pico", "matrix"]
"""The way in which :func:`torch_mmd_losses.conv_spectral_norm` finds the norm of a layer."""

METHODS: tuple[str, ...] = get_args(Method)

Group = Literal["real", "cross", "fake"]
"""A group of pairs: two real samples, a real and a fake one, or two fake ones."""

GROUPS: tuple[Group, ...] = get_args(Group)

Bounds = Literal["none", "attractive", "repulsive"]
"""The bounds that a bounded kernel applies: none (generator), or Eq. 6 or 7 of Wang et al. (discriminator)."""

Normaliser = Literal["none", "rows", "rows_and_columns", "sharp"]
"""The normalisation of the weights of a drift, see :func:`torch_mmd_losses.drift`."""

NORMALISERS: tuple[str, ...] = get_args(Normaliser)

TestStatistic = Literal["max", "fuse"]
"""The way in which :func:`torch_mmd_losses.mmd_test` combines several kernels into one statistic."""

TEST_STATISTICS: tuple[str, ...] = get_args(TestStatistic)

Features = Literal["nystrom", "fourier"]
"""The features that :func:`torch_mmd_losses.mmd_test` computes for a kernel."""

FEATURES: tuple[str, ...] = get_args(Features)
