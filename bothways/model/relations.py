"""Attention relations: what one model's tokens are to each other, in a form that a model of another width can learn
(MiniLMv2, Wang et al. 2020, arXiv:2012.15828, section 3).

Queries, keys or values of all heads are put side by side and cut anew into A_r relation heads, as many in both models.
A token's relation is softmax(x xᵀ / √(H / A_r)) over the tokens of its own sequence; no token sees another sequence.

Shapes: T tokens, A heads, D = H/A, A_r relation heads, L tokens of a sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bothways.model.kernels.by_length import equal_lengths, split_groups

# Scores of pairs of tokens that are in memory at the same time, or those of one relation head of one sequence where
# they are more (L = 2,048): 16 MB in float32, of which there are five. All of 2,304 tokens at L = 512 would be 75 MB
# for each of the three relations and 16 heads, and autograd would keep several of each.
MAX_SCORES = 1 << 22


class Projections(NamedTuple):
    """What a layer's attention is given, each `[T, A, D]`; with rotary positions, queries and keys are turned."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def relation_loss(student: Tensor, teacher: Tensor, heads: int, lengths: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of the student's relations from the teacher's, a mean over relation heads and a
    sum over tokens: `L_i` of Wang et al. 2020, section 3, times the number of tokens. A scalar, of at least float32.

    student, teacher: `[T, A, D]`, all queries, all keys or all values; widths A × D may differ, both are multiples of
    `heads`. lengths: int64 `[N]` on the CPU, that sum to T. Differentiable once, in `student` alone.

    Costs, forward and backward, 2 × T × L × (2 × H of the student + H of the teacher) multiplications, and some ten
    passes over T × L × `heads` scores, which are never kept: see `MAX_SCORES`. On one AVX2 core 0.08 s for 1,152 tokens
    at L = 128 with 16 heads.
    """
    cut = [projected.flatten(1).unflatten(1, (heads, -1)) for projected in (student, teacher)]
    found: Tensor = _RelationLoss.apply(*cut, lengths, torch.is_grad_enabled())
    return found


class _RelationLoss(torch.autograd.Function):
    """With S = x xᵀ / √d of the student, S' of the teacher, and Q, P their softmax, by Z and Z':
    loss = Σ P (S' - S) + log Z - log Z';   dS = Q - P;   dx = (dS + dSᵀ) x / √d."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, lengths: Tensor, needs_grad: bool) -> Tensor:
        exact = torch.promote_types(student.dtype, torch.float32)
        heads, scale = student.shape[1], student.shape[2] ** -0.5
        total = student.new_zeros((), dtype=exact)
        grads = []
        groups = equal_lengths(lengths)
        for (count, length), *parts in zip(groups, *(split_groups(x, groups) for x in (student, teacher)), strict=True):
            x, y = (part.unflatten(0, (count, length)).transpose(1, 2).flatten(0, 1).to(exact) for part in parts)
            grad = torch.empty_like(x) if needs_grad else x
            for chunk in torch.arange(len(x)).split(max(1, MAX_SCORES // length**2)):
                rows = slice(int(chunk[0]), int(chunk[-1]) + 1)
                theirs, p, log_theirs = _relations(y[rows])
                ours, q, log_ours = _relations(x[rows])
                total += torch.dot(p.flatten(), theirs.sub_(ours).flatten()) + (log_ours - log_theirs).sum()
                if needs_grad:
                    of_scores = q.sub_(p)
                    grad[rows] = (of_scores + of_scores.mT) @ x[rows]
            if needs_grad:
                grads.append(grad.unflatten(0, (count, heads)).transpose(1, 2).flatten(0, 1))
        if needs_grad:
            ctx.save_for_backward(torch.cat(grads).mul_(scale / heads).to(student.dtype))
        return total / heads

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (saved,) = ctx.saved_tensors
        return saved * grad.to(saved.dtype), None, None, None


def _relations(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores less the highest of their row, `[B, L, L]`, their softmax, and the logarithm of what that divides by,
    `[B, L, 1]`, of vectors `[B, L, D]`. One exponential for each score, where softmax and log-softmax take three."""
    scores = (x @ x.mT).mul_(x.shape[-1] ** -0.5)
    scores -= scores.amax(-1, keepdim=True)
    exponentials = scores.exp()
    sums = exponentials.sum(-1, keepdim=True)
    return scores, exponentials.div_(sums), sums.log()
