"""The libraries of the comparison, and the probes that are run on each of them."""
