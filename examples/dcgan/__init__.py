"""The experiments of Wang et al. (2019): what the scripts beside this folder share."""
