import pytest

from fromnoise.algorithms.schedules import lr_scale


def test_trapezoid_by_hand():
    scales = [lr_scale(s, 10, 0.2, 0.4, 0.1) for s in range(10)]
    assert scales == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.775, 0.55, 0.325, 0.1])


@pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 997])
@pytest.mark.parametrize(("warmup", "decay", "final"), [(0.02, 0.5, 0.05), (0.0, 0.0, 0.1), (0.5, 0.9, 0.0), (0.1, 1.0, 0.3)])
def test_bounded_and_ends_at_the_final_value(num_steps, warmup, decay, final):
    scales = [lr_scale(s, num_steps, warmup, decay, final) for s in range(num_steps)]
    assert all(0 <= scale <= 1 for scale in scales)
    assert scales[0] > 0 or num_steps == 1 or final == 0
    if round(decay * num_steps) > 0:
        assert scales[-1] == pytest.approx(final, abs=1e-12)
    else:
        assert scales[-1] == 1


def test_no_steps_is_an_error():
    with pytest.raises(ValueError, match="num_steps"):
        lr_scale(0, 0, 0.1, 0.1, 0.1)
