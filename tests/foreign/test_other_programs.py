"""The functions of `docs/other_programs.md` have the values and gradients of the programs' formulas.

So has the p-value of a single observation in `docs/two_samples.md`, for which programs use MMD too.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import scores
from scipy.stats import wasserstein_distance
from torch.nn import functional as F
from torch.testing import assert_close

from torch_mmd_losses import RBFKernel, median_distance, mmd2

PAGE = Path(__file__).parents[2] / "docs" / "other_programs.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ALPHAS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6]


@pytest.fixture(scope="module")
def page():
    """The functions of the page."""
    namespace = {"__name__": "example"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            exec(compile(block, PAGE, "exec"), namespace)
    return namespace


def agree(ours, theirs, *inputs):
    """Compare values and gradients of two functions."""
    results = []
    for function in (ours, theirs):
        leaves = [each.clone().requires_grad_() for each in inputs]
        value = function(*leaves)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), leaves)))
    assert all(part.abs().max() > 1e-6 for part in results[0])
    assert_close(*results, rtol=1e-9, atol=1e-12)


def sq(a, b):
    return (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)


def biased(k, x, y):
    return k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean()


def unbiased(k, x, y):
    within = [(k(z, z).sum() - k(z, z).trace()) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return sum(within) - 2 * k(x, y).mean()


def snippet(e, mean):
    """The mixture of `MMD_loss(kernel_mul=2.0, kernel_num=5)`."""
    return sum(torch.exp(-e / (mean / 2.0 ** (5 // 2) * 2.0**i)) for i in range(5))


def mean_of_distinct(x, y):
    e = sq(torch.cat([x, y]), torch.cat([x, y])).detach()
    return e.sum() / (len(e) ** 2 - len(e))


def mean_of_all(x, y):
    return sq(torch.cat([x, y]), torch.cat([x, y])).detach().mean()


def dan_gram(x, y):
    square = mean_of_all(x, y)
    return lambda a, b: sum(torch.exp(-sq(a, b) / (2 * 2.0**k * square)) for k in range(-3, 2))


def pair(m=7, n=5, d=3):
    return scores(m, d, 1), scores(n, d, 2, scale=1.3, shift=0.4)


def test_mmd_loss(page):
    def theirs(x, y):
        mean = mean_of_distinct(x, y)
        return biased(lambda a, b: snippet(sq(a, b), mean), x, y)

    agree(page["mmd_loss"], theirs, *pair())


def test_dan(page):
    agree(page["dan"], lambda x, y: unbiased(dan_gram(x, y), x, y), *pair())


@pytest.mark.parametrize("linear", [True, False])
def test_jan(page, linear):
    n = 6
    inputs = [*pair(n, n), scores(n, 2, 3).softmax(1), scores(n, 2, 4).softmax(1)]

    def theirs(x, y, p, q):
        first = dan_gram(x, y)

        def k(a, b):
            (i, own), (j, other) = a, b
            return first(i, j) * torch.exp(-sq(own, other) / (2 * 0.92**2))

        s, t = (x, p), (y, q)
        if not linear:
            grams = k(s, s), k(s, t), k(t, t)
            within = [(g.sum() - g.trace()) / (n * (n - 1)) for g in grams[::2]]
            return sum(within) - 2 * grams[1].mean()
        i, j = torch.arange(n), (torch.arange(n) + 1) % n
        return (k(s, s)[i, j] + k(t, t)[i, j] - k(s, t)[i, j] - k(s, t)[j, i]).mean()

    agree(lambda x, y, p, q: page["jan"](x, p, y, q, linear=linear), theirs, *inputs)


def test_lmmd(page):
    x, y = pair(8, 6)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 4, 4])  # class 3 occurs in the target only
    logits = scores(6, 5, 3)
    logits[0, 0] = logits[1, 1] = logits[2, 3] = logits[3, 4] = 9.0
    probabilities = logits.softmax(1)
    likeliest = set(probabilities.argmax(1).tolist())
    present = [c for c in range(5) if c in labels.tolist() and c in likeliest]
    assert len(present) >= 2
    assert 3 in likeliest.difference(present)

    def theirs(x, y):
        mean, total = mean_of_distinct(x, y), 0
        for c in present:
            w = (labels == c).double() / (labels == c).sum()
            u = probabilities[:, c] / probabilities[:, c].sum()
            grams = [snippet(sq(a, b), mean) for a, b in ((x, x), (y, y), (x, y))]
            total = total + w @ grams[0] @ w + u @ grams[1] @ u - 2 * w @ grams[2] @ u
        return total / len(present)

    agree(lambda x, y: page["lmmd"](x, labels, y, probabilities), theirs, x, y)
    empty = page["lmmd"](x.requires_grad_(), torch.full((8,), 3), y, F.one_hot(torch.zeros(6, dtype=int), 5).double())
    assert empty == 0
    assert empty.requires_grad


def test_domainbed(page):
    domains = [*pair(), scores(6, 3, 3, shift=-0.5)]

    def k(a, b):
        return sum(torch.exp(-gamma * sq(a, b)) for gamma in [0.001, 0.01, 0.1, 1, 10, 100, 1000])

    def over_pairs(distance, *given):
        pairs = [distance(given[i], given[j]) for i in range(3) for j in range(i + 1, 3)]
        return sum(pairs) / 3

    def coral(x, y):
        means = (x.mean(0) - y.mean(0)).square().mean()
        return means + (torch.cov(x.T) - torch.cov(y.T)).square().mean()

    for ours, theirs in (("mmd", lambda x, y: biased(k, x, y)), ("coral", coral)):
        agree(
            lambda *given, ours=ours: page["over_pairs"](page[ours], given),
            lambda *given, theirs=theirs: over_pairs(theirs, *given),
            *domains,
        )

    def deep_coral(x, y):
        return (torch.cov(x.T) - torch.cov(y.T)).square().sum() / (4 * x.shape[1] ** 2)

    agree(lambda x, y: page["covariances"](x, y) / 4, deep_coral, *pair())


def test_trvae(page):
    cells = scores(12, 3, 1, scale=0.3)
    condition = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3])  # condition 2 has one cell

    def k(a, b):
        return sum(torch.exp(-alpha * (sq(a, b) + 1e-5)) for alpha in ALPHAS)

    def theirs(cells):
        groups = [cells[condition == c] for c in (0, 1, 3)]
        return sum(unbiased(k, groups[i], groups[j]) for i in range(3) for j in range(i))

    agree(lambda cells: page["over_conditions"](cells, condition), theirs, cells)
    alone = page["over_conditions"](cells.requires_grad_(), torch.arange(12))
    assert alone == 0
    assert alone.requires_grad


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_cfr(page, p):
    def theirs(control, treated):
        m, n = len(control), len(treated)
        cc, ct, tt = (
            torch.exp(-sq(a, b) / 0.8**2) for a, b in ((control, control), (control, treated), (treated, treated))
        )
        value = (1 - p) ** 2 / (m * (m - 1)) * (cc.sum() - m) + p**2 / (n * (n - 1)) * (tt.sum() - n)
        return 4 * (value - 2 * p * (1 - p) / (m * n) * ct.sum())

    agree(lambda c, t: page["cfr"](c, t, sigma=0.8, p=p), theirs, *pair())


def test_bear(page):
    a, b = scores(12, 3, 1).view(4, 3, 3), scores(20, 3, 2, shift=0.4).view(4, 5, 3)

    def theirs(a, b):
        def mean(p, q):
            l1 = (p.unsqueeze(2) - q.unsqueeze(1)).abs().sum(-1)
            return torch.exp(-l1 / (2 * 0.7)).mean((1, 2))

        return (mean(a, a) + mean(b, b) - 2 * mean(a, b) + 1e-6).sqrt()

    agree(lambda a, b: page["bear"](a, b, sigma=0.7), theirs, a, b)


def test_nst(page):
    student, teacher = scores(2 * 3, 8, 1).view(2, 3, 2, 4), scores(2 * 5, 8, 2).view(2, 5, 2, 4)

    def theirs(student, teacher):
        s, t = (F.normalize(maps.view(*maps.shape[:2], -1), dim=2) for maps in (student, teacher))

        def mean(a, b):
            return torch.einsum("gid,gjd->gij", a, b).square().mean()

        return mean(s, s) + mean(t, t) - 2 * mean(s, t)

    agree(page["nst"], theirs, student, teacher)


def test_graphs(page):
    generator = np.random.default_rng(0)
    first, second = ([generator.uniform(1, 9, size=size) for size in sizes] for sizes in ((4, 7, 5), (6, 3, 9, 4)))

    def emd(x, y):
        return wasserstein_distance(range(len(x)), range(len(y)), x, y)

    def variation(x, y):
        longest = max(len(x), len(y))
        x, y = (np.pad(z / z.sum(), (0, longest - len(z))) for z in (x, y))
        return np.abs(x - y).sum() / 2

    def theirs(distance):
        def mean(xs, ys):
            return np.mean([[np.exp(-(distance(x, y) ** 2) / (2 * 0.6**2)) for y in ys] for x in xs])

        return mean(first, first) + mean(second, second) - 2 * mean(first, second)

    rows = page["cumulative"]([torch.from_numpy(histogram) for histogram in first + second])
    shares = rows.diff(dim=1, prepend=torch.zeros(7, 1))
    emd_kernel = page["GaussianEMD"](0.6, distance_scaling=2.0), page["GaussianEMD"](0.6)
    value = mmd2(rows[:3], rows[3:], emd_kernel[1], estimator="biased")
    assert value.item() == pytest.approx(theirs(emd), rel=1e-9)
    value = mmd2(shares[:3], shares[3:], emd_kernel[0], estimator="biased")
    assert value.item() == pytest.approx(theirs(variation), rel=1e-9)


def test_the_kernels_of_graphs_are_not_positive_definite(page):
    rows = scores(40, 8, 0).exp().square()
    rows = (rows / rows.sum(1, keepdim=True)).cumsum(1)
    assert torch.linalg.eigvalsh(page["GaussianEMD"](1.0)(rows, rows))[0] < -1e-3
    shares = torch.cat([torch.eye(6), (torch.eye(6)[:3] + torch.eye(6)[3:]) / 2, torch.full((1, 6), 1 / 6)]).double()
    assert torch.linalg.eigvalsh(page["GaussianEMD"](1.0, distance_scaling=2.0)(shares, shares))[0] < -1e-3


def test_the_p_value_of_a_single_observation_is_its_rank_by_mmd2():
    text = PAGE.with_name("two_samples.md").read_text(encoding="utf-8")
    (block,) = [block for block in BLOCK.findall(text) if "def p_value_of" in block]
    namespace = {"torch": torch}
    exec(block, namespace)
    rows = scores(30, 2, 1)
    kernel, every = RBFKernel(median_distance(rows)), range(len(rows))
    others = [torch.cat([rows[:i], rows[i + 1 :]]) for i in every]
    values = torch.stack([mmd2(rows[i : i + 1], others[i], kernel, estimator="biased") for i in every])
    for i in every:
        found = namespace["p_value_of"](rows[i : i + 1], others[i])
        assert found == pytest.approx((values >= values[i]).double().mean().item())
