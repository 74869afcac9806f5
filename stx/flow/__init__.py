"""Interpolant, objective, guidance and solvers, as functions on tensors."""
