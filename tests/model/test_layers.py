"""Blocks start as the identity, dropout cannot be read off next door, attention keeps to masks."""

import pytest
import torch

from sciwm.model.layers import Attention, Block, ConditionedBlock, TokenDropout
from sciwm.model.settings import Sizes


def test_dropout_mask_is_shared_by_tokens_and_keeps_the_mean():
    dropout = TokenDropout(0.3).train()
    torch.manual_seed(0)
    out = dropout(torch.ones(2000, 5, 8))
    assert (out == out[:, :1]).all()
    assert sorted(out.unique().tolist()) == [0.0, pytest.approx(1 / 0.7)]
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(out.mean()) == pytest.approx(1, abs=0.02)
    # Samples and features are dropped independently.
    assert len(out[:, 0].unique(dim=0)) > 100


def test_dropout_is_off_when_not_training():
    tokens = torch.randn(3, 4, 5)
    assert torch.equal(TokenDropout(0.5).eval()(tokens), tokens)
    assert torch.equal(TokenDropout(0.0).train()(tokens), tokens)


def test_conditioned_block_starts_as_the_identity():
    block = ConditionedBlock(Sizes(token_dim=16, mlp_ratio=2.0, dropout=0.5)).train()
    tokens = torch.randn(3, 7, 16)
    for condition in (torch.zeros(3, 16), 100 * torch.randn(3, 16)):
        assert torch.equal(block(tokens, condition, None), tokens)
        assert torch.equal(block(tokens, condition, None, 2), tokens[:, -2:])


def test_asking_for_the_last_tokens_gives_the_last_of_all():
    torch.manual_seed(0)
    block = ConditionedBlock(Sizes(token_dim=16, mlp_ratio=2.0, dropout=0.0))
    torch.nn.init.normal_(block.modulate.weight)
    tokens, condition = torch.randn(3, 7, 16), torch.randn(3, 16)
    valid = torch.rand(3, 7) > 0.3
    whole = block(tokens, condition, valid)
    torch.testing.assert_close(block(tokens, condition, valid, 3), whole[:, -3:])


def test_attention_against_softmax_written_out():
    torch.manual_seed(0)
    attention = Attention(dim=8, num_heads=2)
    tokens = torch.randn(3, 5, 8)
    valid = torch.tensor([[True] * 5, [True, False, True, True, False], [False] * 4 + [True]])
    query, key, value = attention.project(tokens).chunk(3, dim=-1)
    mixed = []
    for head in (slice(0, 4), slice(4, 8)):
        score = query[..., head] @ key[..., head].transpose(1, 2) / 2
        mixed.append(score.masked_fill(~valid[:, None], -torch.inf).softmax(-1) @ value[..., head])
    torch.testing.assert_close(attention(tokens, valid), attention.out(torch.cat(mixed, dim=-1)))


def test_attention_is_the_same_under_autocast_on_a_cpu():
    torch.manual_seed(0)
    attention, tokens = Attention(dim=8, num_heads=2), torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(tokens, None)
    torch.testing.assert_close(out.float(), attention(tokens, None), atol=3e-2, rtol=3e-2)


def test_a_state_without_any_data_stays_finite():
    block = Block(Sizes(token_dim=8, num_heads=2, mlp_ratio=2.0, dropout=0.0))
    tokens = torch.randn(2, 3, 8, requires_grad=True)
    out = block(tokens, torch.tensor([[True] * 3, [False] * 3]))
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert torch.isfinite(tokens.grad).all()
