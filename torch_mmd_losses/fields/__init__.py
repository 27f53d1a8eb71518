"""Sums of kernel values at given points, and the vector fields that move samples: witness gradients and drifts."""
