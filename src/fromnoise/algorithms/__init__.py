"""Pure tensor functions: log-probabilities, losses, advantages, masking, schedules.

They import torch and the standard library only: no recipe, no rank, no file. A loss returns `(sum, count)`; the one
division by the count over all micro-batches and ranks is made in `run/update.py`.
"""
