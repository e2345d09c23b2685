"""What every row of the comparison has in common: one shape of model, one length, one batch. Standard library only."""

VOCAB_SIZE = 4096
SHAPE = {"num_layers": 6, "width": 256, "num_heads": 4, "num_kv_heads": 4, "head_size": 64, "ffn_width": 768}
CONTEXT_TOKENS = 512
ROW_TOKENS = 512  # of supervised and preference training; longer records are left out on both sides
BATCH = 16  # sequences, pairs or samples of a step
PRETRAIN_ROW_TOKENS, PRETRAIN_ROWS = 256, 16
NUM_PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 64, 32, 128
GROUP, GRPO_NEW_TOKENS = 8, 64
KL_COEF = 0.05
LOSS_STEPS, LOSS_LR = 6, 1e-3  # of the comparison of losses at equal steps
