"""What changes over the steps: the learning rate, a function of the step alone, and the KL coefficient, which adapts."""

from __future__ import annotations


def lr_scale(step: int, num_steps: int, warmup_frac: float, decay_frac: float, final_frac: float) -> float:
    """Trapezoid: linear warm-up, flat, linear decay. `step` counts from 0; returns a factor in [0, 1], 0 at the last step where `final_frac` is.

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


def adapted_kl_coef(kl_coef: float, kl_nats: float, target_nats: float, gain: float = 0.1, most: float = 0.2) -> float:
    """The KL coefficient of the next iteration: larger when the policy is farther from the reference than wanted.

    e = clip(kl / target - 1, -most, most), coef' = coef (1 + gain e): Ziegler et al. 2019 (arXiv 1909.08593), section 2.2,
    with their clip and gain. A proportional controller in the logarithm: it changes by 2 % an iteration at most, so a run of
    60 iterations can move it by a factor of three. kl_nats, target_nats: of a whole answer.

    >>> round(adapted_kl_coef(0.05, kl_nats=12.0, target_nats=6.0), 4), round(adapted_kl_coef(0.05, 5.7, 6.0), 5)
    (0.051, 0.04975)
    """
    if target_nats <= 0:
        raise ValueError(f"target_nats must be positive, got {target_nats}")
    error = min(max(kl_nats / target_nats - 1.0, -most), most)
    return kl_coef * (1.0 + gain * error)
