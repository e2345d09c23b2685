"""Ranks and how gradients meet."""
