"""Domain adaptation of tables: a batch effect on each column, and classes that are not equally frequent in the target.

The source is one half of the digits, as a table of pixels that are not constant. In the target, each column has another
offset and another unit. In the skewed target, one in ten samples is left of the digits 5 to 9.
"""

from itertools import product
from statistics import fmean

import torch
from adaptation_choices import balanced, no_penalty, of_layers, rising, train, within_classes


def with_batch_effect(table):
    """Return the table of another batch of the experiment, with other offsets and units of the columns."""
    generator = torch.Generator().manual_seed(0)
    columns = table.shape[1]
    units = (0.7 * torch.randn(columns, generator=generator)).exp()
    return table * units + torch.randn(columns, generator=generator)


def standardised(table, by=None):
    """Return a table with columns of mean 0 and deviation 1, by its own rows or by those of another table."""
    rows = table if by is None else by
    return (table - rows.mean(0)) / rows.std(0).clamp_min(1e-6)


def tables(images, labels, *, skewed):
    """Return the source, its labels, the target, and its labels."""
    table = images.flatten(1)
    table = table[:, table[:900].std(0) > 0.1]
    rows = torch.arange(900, len(labels))
    if skewed:
        rows = rows[(labels[rows] < 5) | (torch.arange(len(rows)) % 10 == 0)]
    return table[:900], labels[:900], with_batch_effect(table[rows]), labels[rows]


PENALTIES = {"none": no_penalty, "plain": of_layers("features"), "balanced": balanced, "within classes": within_classes}


def accuracy(images, labels, penalty, *, skewed, each_by_itself, seed, steps=200):
    source, source_labels, target, target_labels = tables(images, labels, skewed=skewed)
    target = standardised(target, None if each_by_itself else source)
    source = standardised(source)
    found = train(source, source_labels, target, PENALTIES[penalty], rising(1.0), seed=seed, steps=steps)
    return (found == target_labels).float().mean().item()


if __name__ == "__main__":
    import small_digits as digits

    for each_by_itself, penalty, skewed in product((False, True), PENALTIES, (False, True)):
        options = {"skewed": skewed, "each_by_itself": each_by_itself}
        found = [accuracy(*digits.load(), penalty, **options, seed=seed) for seed in range(5)]
        where = f"{'each by itself' if each_by_itself else 'by the source'}, {'skewed' if skewed else 'equal'}"
        print(f"{where}, {penalty}: {fmean(found):.3f} ({min(found):.3f} to {max(found):.3f})", flush=True)
