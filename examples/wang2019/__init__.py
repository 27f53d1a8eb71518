"""The experiments of Wang, Sun, Halgamuge (2019), Improving MMD-GAN Training with Repulsive Loss Function."""
