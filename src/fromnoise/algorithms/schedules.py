"""Learning-rate multipliers as a function of the step alone, so that a resumed run continues on the same curve."""

from __future__ import annotations


def lr_scale(step: int, num_steps: int, warmup_frac: float, decay_frac: float, final_frac: float) -> float:
    """Trapezoid: linear warm-up, flat, linear decay. `step` counts from 0; returns a factor in (0, 1].

    warmup over the first `round(warmup_frac * num_steps)` steps (step k gets (k + 1) / warmup, never 0); decay over
    the last `round(decay_frac * num_steps)`, the last step getting `final_frac` exactly.
    Warm-up, stable, decay: Zhai et al. 2022 (arXiv 2106.04560) and Hägele et al. 2024 (arXiv 2405.18392).

    >>> [round(lr_scale(s, 10, 0.2, 0.4, 0.1), 3) for s in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1]
    """
    if num_steps <= 0:
        raise ValueError(f"num_steps must be positive, got {num_steps}")
    warmup_steps = round(warmup_frac * num_steps)
    decay_steps = round(decay_frac * num_steps)
    scale = 1.0
    if step < warmup_steps:
        scale = (step + 1) / warmup_steps
    steps_left = num_steps - 1 - step
    if steps_left < decay_steps:
        progress = min(1.0, (decay_steps - steps_left) / decay_steps)
        scale = min(scale, 1.0 - (1.0 - final_frac) * progress)
    return scale
