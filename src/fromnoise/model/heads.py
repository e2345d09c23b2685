"""A scalar head on the transformer: the reward model, the audit model and the critic are this."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.model.transformer import Matrix, Transformer


class ScoreModel(nn.Module):
    """A score at every position. A reward model's score of a sequence is the one at its last token.

    `mean` and `std` are the reward model's normalisation, kept beside the weights and saved with them:
    normalised score = (score - mean) / std. Training sees raw scores.
    """

    def __init__(self, backbone: Transformer, mean: float = 0.0, std: float = 1.0):
        super().__init__()
        if not backbone.config.tie_embeddings:
            backbone.lm_head = None  # a scorer predicts no token; an unused matrix would be trained, saved and carried along
        self.backbone = backbone
        # Zero: every answer starts with score 0 and the Bradley-Terry loss with ln 2.
        self.score = Matrix(1, backbone.config.width)
        self.mean, self.std = mean, std

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, segment_ids: Tensor | None = None) -> Tensor:
        """input_ids (B, T) -> scores (B, T), fp32."""
        return self.score_hidden(self.backbone(input_ids, position_ids, segment_ids))

    def score_hidden(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> (...), fp32. The head is one dot product: in fp32 it costs nothing and loses nothing."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.score.weight.float()).squeeze(-1)


class ScoreEnsemble(nn.Module):
    """Several scorers of one kind as one: the mean of their raw scores.

    Bradley-Terry leaves each member a constant of its own, so members carry their own `mean`; they share one `std`,
    that of the mean, and (score - mean) / std of the mean is the mean of the members' normalised scores.
    """

    def __init__(self, members: Sequence[ScoreModel]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mean, self.std = sum(member.mean for member in members) / len(members), members[0].std

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, segment_ids: Tensor | None = None) -> Tensor:
        """input_ids (B, T) -> scores (B, T), fp32."""
        return torch.stack([member(input_ids, position_ids, segment_ids) for member in self.members]).mean(dim=0)


def members_of(model: ScoreModel | ScoreEnsemble) -> list[ScoreModel]:
    return list(model.members) if isinstance(model, ScoreEnsemble) else [model]
