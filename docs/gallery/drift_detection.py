"""
Drift detection over time
=========================

A model was trained on reference data. New rows arrive every week. ``mmd_test`` tests whether the rows of a week come
from the same distribution as the reference, without assumptions about this distribution.
"""

# %%
# The table has three columns: an income in dollars and two scores. From week 6 on, the second score slowly follows the
# first. Means and variances stay the same; only the correlation changes.

import matplotlib.pyplot as plt
import torch

from torch_mmd_losses import mmd_test


def rows(count, correlation, generator):
    income = 50_000 + 15_000 * torch.randn(count, generator=generator)
    first = torch.randn(count, generator=generator)
    second = torch.randn(count, generator=generator)
    second = correlation * first + (1 - correlation**2) ** 0.5 * second
    return torch.stack([income, first, second], 1)


# %%
# **Standardise the columns.** Distances are sums over columns, so a column in dollars dominates all others. Divide both
# samples by the standard deviations of the *reference*.

random = torch.Generator().manual_seed(0)
reference = rows(500, 0.0, random)
mean, std = reference.mean(0), reference.std(0)


def p_value(week, standardise, permutations=199):
    first, second = reference, week
    if standardise:
        first, second = (first - mean) / std, (second - mean) / std
    seeded = torch.Generator().manual_seed(0)
    return float(
        mmd_test(first, second, generator=seeded, permutations=permutations).p_value
    )


for standardise in (False, True):
    found = sum(
        p_value(rows(500, 0.7, random), standardise) <= 0.05 for _ in range(20)
    )
    name = "with" if standardise else "without"
    print(f"{name} standardised columns: drift found in {found} of 20 weeks")

# %%
# Without standardised columns, the test finds the drift no more often than it raises false alarms.
#
# The picture shows a p-value for each of 20 weeks. If each test had a level of 5 %, one week in twenty would raise a
# false alarm without any drift. With the level 0.05 / 20, no week does, with a probability of 95 %. Such small p-values
# need at least 399 permutations; 799 are better. :doc:`/two_samples` has rules for other numbers of tests, and names the
# columns that have changed.

level = 0.05 / 20
correlations = [0.0] * 5 + [min(0.05 * week, 0.7) for week in range(1, 16)]
weeks = [rows(500, correlation, random) for correlation in correlations]

figure, axes = plt.subplots(2, 1, sharex=True, height_ratios=[1, 2])
number = range(1, 21)
axes[0].step(number, correlations, where="mid", color="gray")
axes[0].set_ylabel("correlation")
for standardise, label in (
    (False, "columns as they are"),
    (True, "standardised columns"),
):
    values = [p_value(week, standardise, 799) for week in weeks]
    first = next((i for i in number if values[i - 1] <= level), None)
    print(f"{label}: first alarm in week {first}")
    axes[1].semilogy(number, values, "o-", label=label)
axes[1].axhline(level, color="black", linestyle="--", label="0.05 / 20")
axes[1].set(xlabel="week", ylabel="p-value", xticks=range(1, 21))
axes[1].legend()
plt.show()
