"""Attention relations against the paper's formula, written out with padding (Wang et al. 2020, section 3)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bothways.model import relations
from bothways.model.relations import relation_loss

LENGTHS = (9, 5, 5, 5, 2, 1)


def projections(heads: int, size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(sum(LENGTHS), heads, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(dtype)


def padded_relations(projected: Tensor, relation_heads: int) -> tuple[Tensor, Tensor]:
    """Log-relations `[N, relation_heads, longest, longest]`, padding masked, and which positions are real."""
    vectors = torch.cat(list(projected.unbind(1)), dim=-1)  # all heads side by side
    sequences = torch.nn.utils.rnn.pad_sequence(list(vectors.split(LENGTHS)), batch_first=True)
    heads = torch.stack(sequences.chunk(relation_heads, dim=-1), dim=1)
    real = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    scores = torch.einsum("nasd,natd->nast", heads, heads) / (vectors.shape[-1] / relation_heads) ** 0.5
    return scores.masked_fill(~real[:, None, None], -1e30).log_softmax(-1), real


def padded_loss(student: Tensor, teacher: Tensor, relation_heads: int) -> Tensor:
    log_q, real = padded_relations(student, relation_heads)
    log_p, _ = padded_relations(teacher, relation_heads)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)  # [N, relation_heads, longest]
    return (divergence * real[:, None]).sum() / relation_heads


@pytest.mark.parametrize("most_scores", [1 << 22, 60, 1])
@pytest.mark.parametrize("heads", [1, 2, 6, 12])
def test_the_loss_is_the_papers_in_values_and_gradients(
    heads: int, most_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relations, "MAX_SCORES", most_scores)  # 1: a relation head of a sequence at a time
    student, teacher = projections(3, 4, seed=1).requires_grad_(), projections(4, 9, seed=2)
    expected = padded_loss(student, teacher, heads)
    (expected_grad,) = torch.autograd.grad(expected, student)
    found = relation_loss(student, teacher, heads, torch.tensor(LENGTHS))
    (grad,) = torch.autograd.grad(3 * found, student)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, 3 * expected_grad, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(relation_loss(student, teacher, heads, torch.tensor(LENGTHS)), expected)


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    student = projections(4, 3, seed=3).requires_grad_()
    loss = relation_loss(student, student.detach().view(-1, 2, 6), 2, torch.tensor(LENGTHS))
    (grad,) = torch.autograd.grad(loss, student)
    assert abs(float(loss.detach())) < 1e-12
    assert float(grad.abs().max()) < 1e-12


def test_relations_stay_inside_a_sequence() -> None:
    """Another sequence's tokens change neither the loss of a sequence nor its gradient."""
    student, teacher = projections(2, 6, seed=4).requires_grad_(), projections(2, 6, seed=5)
    parts = [
        relation_loss(x, y, 2, torch.tensor([len(x)]))
        for x, y in zip(student.split(LENGTHS), teacher.split(LENGTHS), strict=True)
    ]
    whole = relation_loss(student, teacher, 2, torch.tensor(LENGTHS))
    torch.testing.assert_close(whole, torch.stack(parts).sum())
    grads = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (whole, torch.stack(parts).sum())]
    torch.testing.assert_close(*grads)


def test_narrow_numbers_are_added_up_in_float32() -> None:
    student, teacher = projections(2, 6, seed=6, dtype=torch.bfloat16), projections(3, 4, seed=7, dtype=torch.bfloat16)
    student.requires_grad_()
    loss = relation_loss(student, teacher, 2, torch.tensor(LENGTHS))
    (grad,) = torch.autograd.grad(loss, student)
    assert (loss.dtype, grad.dtype) == (torch.float32, torch.bfloat16)
    expected = padded_loss(student.detach().double(), teacher.double(), 2)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
