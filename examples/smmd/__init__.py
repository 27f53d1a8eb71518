"""The experiments of Arbel et al. (2018): networks, presets, data, losses and one update of them."""
