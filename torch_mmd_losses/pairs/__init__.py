"""Weighted sums of kernel values over pairs of samples, with their gradients.

Every loss and every estimate of MMD^2 is such a sum. For each call, `objective_values.py` asks `plan.py` how to
evaluate each summand of the kernel, and adds the results of `hand_written.py` and `by_autograd.py`.
"""
