"""Kernels: functions of two sets of scores, and what the estimators ask of them."""
