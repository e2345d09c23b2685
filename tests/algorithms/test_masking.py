import pytest
import torch

from fromnoise.algorithms.masking import IGNORE_INDEX, loss_mask_of, masked_mean, masked_sum, masked_variance, masked_whiten


def test_sums_and_means_by_hand():
    values = torch.tensor([[1.0, 2.0, 100.0], [4.0, 100.0, 100.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_sum(values, mask) == 7
    assert masked_mean(values, mask) == pytest.approx(7 / 3)
    assert masked_sum(values, mask, dim=1).tolist() == [3, 4]
    assert masked_variance(values, mask) == pytest.approx(((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 3)


def test_empty_mask_is_zero_and_not_nan():
    values = torch.ones(2, 3)
    assert masked_mean(values, torch.zeros(2, 3, dtype=torch.bool)) == 0


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_masked_does_not_leak(poison):
    values = torch.tensor([1.0, poison, 3.0])
    mask = torch.tensor([True, False, True])
    assert masked_mean(values, mask) == 2
    assert masked_whiten(values, mask).isfinite().all()
    assert not (values * mask).sum().isfinite()  # the broken twin: multiplying by the mask


def test_whitening_uses_counted_tokens_only():
    values = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False, False, False]])
    white = masked_whiten(values, mask)
    assert white[0, :3].tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])
    assert not white[0, 3:].any()
    whole = (values - values.mean()) / values.std(correction=0)  # the broken twin: padding inside the statistics
    assert not torch.allclose(whole[0, :3], white[0, :3], rtol=1e-2)


def test_loss_mask_of_labels():
    assert loss_mask_of(torch.tensor([3, IGNORE_INDEX, 0])).tolist() == [True, False, True]
