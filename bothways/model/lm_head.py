"""Scores over the vocabulary, and their cross-entropy without ever holding them all.

Shapes: R tokens that are scored, H hidden, E width of the token table, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bothways.model.kernels.cross_entropy import compiled_cross_entropy
from bothways.model.sublayer import activate
from bothways.native.loading import has_training_kernels

# Tokens whose scores are in memory at the same time: 62 MB in float32 with 30,522 pieces. On a GPU eight times as many,
# as each chunk also reads and writes the whole gradient of the vocabulary.
CHUNK = 512
GPU_CHUNK = 8 * CHUNK
# What the pieces are a multiple of, by type of device, in the products of training: on a GPU in half precision other
# numbers, as BERT's 30,522, are left to kernels of an older kind.
MULTIPLE_OF = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class LazyLogits:
    """The scores of every piece at R tokens, not yet multiplied out.

    hidden: `[R, E]`, what the decoder `[V, E]` is to read. dtype: that of the product. casts: whether the decoder is of
    another type, as in training with autocast.
    """

    hidden: Tensor
    decoder: nn.Linear
    dtype: torch.dtype
    casts: bool = False

    @property
    def logits(self) -> Tensor:
        """The scores multiplied out, `[R, V]`."""
        with torch.autocast(self.hidden.device.type, self.dtype, enabled=self.casts):
            scores: Tensor = self.decoder(self.hidden)
        return scores

    def cross_entropy(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of minus the log-probabilities of the true ids (`labels`, int64 `[R]`), and how many of them are the
        first guess; both scalars. Differentiable once, in `hidden` and in the decoder's weight and bias.

        The gradient is made together with the loss, a chunk of tokens at a time, so that the memory is that of
        `CHUNK × V` scores (on a GPU `GPU_CHUNK × V`). With 30,522 pieces and 2,304 rows on two AVX2 cores that takes
        0.97 s, forward and backward, and `F.cross_entropy` 1.28 s; compiled (`kernels/cross_entropy.py`), what is no
        product takes two thirds of the time.
        """
        total, right = _CrossEntropy.apply(
            self.hidden, self.decoder.weight, self._bias(), labels, self.dtype, torch.is_grad_enabled()
        )
        return total, right

    def divergence_from(self, teacher: LazyLogits, temperature: float) -> Tensor:
        """How far the softmax of these scores is from that of another model's: the Kullback-Leibler divergence, both
        scores divided by `temperature` (Hinton et al. 2015, section 2), times its square, as a sum over the R tokens. A
        scalar. Differentiable once, in this decoder's weight and bias and in its `hidden`.

        Of tables with unlike numbers of rows, as padding makes them, the rows that both have are compared.
        """
        found: Tensor = _Divergence.apply(
            self.hidden, self.decoder.weight, self._bias(), self.dtype, teacher, temperature
        )
        return found

    def _bias(self) -> Tensor:
        bias: Tensor | None = self.decoder.bias
        return self.hidden.new_zeros(self.decoder.out_features) if bias is None else bias

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> Tensor:
        """An id for each token, drawn from the softmax of its scores, int64 `[R]`; generator: on any device."""
        drawn = []
        for hidden in self.hidden.split(CHUNK):
            scores = replace(self, hidden=hidden).logits.float()
            # the largest of scores and Gumbel noise is a draw from their softmax (Gumbel 1954)
            noise = torch.empty(scores.shape, device=generator.device).exponential_(generator=generator).log_()
            drawn.append((scores - noise.to(scores.device)).argmax(-1))
        return torch.cat(drawn) if drawn else torch.zeros(0, dtype=torch.int64, device=self.hidden.device)

    @torch.no_grad()
    def log_probabilities(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probability of each token's id in `labels` (int64 `[R]`), float32 `[R]`, and whether that id is the
        first guess, bool `[R]`."""
        logs, right = [], []
        for hidden, truth in zip(self.hidden.split(CHUNK), labels.split(CHUNK), strict=True):
            scores = replace(self, hidden=hidden).logits.float()
            logs.append(scores.log_softmax(-1).gather(1, truth[:, None])[:, 0])
            right.append(scores.argmax(-1) == truth)
        return torch.cat(logs), torch.cat(right)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype, needs_grad: bool
    ) -> tuple[Tensor, Tensor]:
        tokens = GPU_CHUNK if weight.is_cuda else CHUNK
        pieces = len(weight)
        more = -pieces % MULTIPLE_OF.get(weight.device.type, 1)
        cast, bias = _with_more_pieces(weight.to(dtype), bias, more)
        grads = [
            x.new_zeros(rows, *x.shape[1:]) if needs_grad else x.new_zeros(0)
            for x, rows in ((hidden, len(hidden)), (weight, pieces + more), (bias, pieces + more))
        ]
        exact = torch.promote_types(dtype, torch.float32)
        total, right = hidden.new_zeros((), dtype=exact), labels.new_zeros(())
        chunk_loss = _chunk_loss_compiled if has_training_kernels(cast) and bias.dtype == torch.float32 else _chunk_loss
        for start in range(0, len(hidden), tokens):
            chunk = slice(start, start + tokens)
            read = hidden[chunk].to(dtype)
            loss, hits, grad_scores = chunk_loss(read, cast, bias, labels[chunk], grads[2] if needs_grad else None)
            total += loss
            right += hits
            if grad_scores is not None:
                grads[0][chunk] = _accumulate(grad_scores, read, cast, grads[1])
        ctx.grads = [grads[0], grads[1][:pieces], grads[2][:pieces]]
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None  # scaled in place, so they serve once
        assert grads is not None, "this loss is differentiable once"
        return (*(saved.mul_(grad.to(saved.dtype)) for saved in grads), None, None, None)


def _with_more_pieces(weight: Tensor, bias: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """A decoder with so many more pieces, none of which is ever likely."""
    if not number:
        return weight, bias
    never = torch.finfo(torch.bfloat16).min  # finite, as a gradient of infinity less infinity is none
    return F.pad(weight, (0, 0, 0, number)), F.pad(bias, (0, number), value=never)


def _chunk_loss(
    read: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, grad_bias: Tensor | None
) -> tuple[Tensor, Tensor | int, Tensor | None]:
    """Of some tokens the sum of the losses, how many first guesses are right, and, with `grad_bias`, to which the
    bias's gradient is added, the gradient of the scores."""
    truth = labels[:, None]
    exact = torch.promote_types(read.dtype, torch.float32)
    scores = torch.addmm(bias.to(read.dtype), read, weight.t()).to(exact)
    highest, guess = scores.max(-1, keepdim=True)
    right = (guess == truth).sum()
    at_truth = scores.gather(1, truth)
    sums = scores.sub_(highest).exp_().sum(-1, keepdim=True)
    loss = (sums.log() + highest - at_truth).sum()
    if grad_bias is None:
        return loss, right, None
    # the gradient of a score is its probability, less one for the true piece
    grad_scores = scores.div_(sums).scatter_add_(1, truth, scores.new_full(truth.shape, -1.0))
    grad_bias += grad_scores.sum(0).to(grad_bias.dtype)
    return loss, right, grad_scores.to(read.dtype)


def _chunk_loss_compiled(
    read: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, grad_bias: Tensor | None
) -> tuple[Tensor, Tensor | int, Tensor | None]:
    """As `_chunk_loss`."""
    scores = read @ weight.t()
    loss, right = compiled_cross_entropy(scores, bias, labels, grad_bias)
    return loss, right, None if grad_bias is None else scores


class _Divergence(torch.autograd.Function):
    """As `_CrossEntropy`, a chunk at a time. With the temperature t and P, Q the softmax of the teacher's and of the
    student's scores divided by t: the loss is t² Σ P log(P / Q), and its gradient by a score t (Q - P)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
        teacher: LazyLogits,
        temperature: float,
    ) -> Tensor:
        needs_grad = any(ctx.needs_input_grad)
        grads = [torch.zeros_like(x) if needs_grad else x.new_zeros(0) for x in (hidden, weight, bias)]
        exact = torch.promote_types(dtype, torch.float32)
        total = hidden.new_zeros((), dtype=exact)
        whole_cast = weight.to(dtype)
        for start in range(0, len(hidden), CHUNK):
            chunk = slice(start, start + CHUNK)
            read = hidden[chunk].to(dtype)
            of_teacher = replace(teacher, hidden=teacher.hidden[chunk]).logits
            cast = whole_cast[: of_teacher.shape[1]]
            pieces = len(cast)
            log_p = (of_teacher[:, :pieces].to(exact) / temperature).log_softmax(-1)
            log_q = (torch.addmm(bias[:pieces].to(dtype), read, cast.t()).to(exact) / temperature).log_softmax(-1)
            total += F.kl_div(log_q, log_p, reduction="sum", log_target=True)
            if needs_grad:
                grad_scores = log_q.exp_().sub_(log_p.exp_()).mul_(temperature)
                grads[2][:pieces] += grad_scores.sum(0).to(bias.dtype)
                grads[0][chunk] = _accumulate(grad_scores.to(dtype), read, cast, grads[1][:pieces])
        ctx.save_for_backward(*grads)
        return total * temperature**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grad.to(saved.dtype) for saved in ctx.saved_tensors), None, None, None)


def _accumulate(grad_scores: Tensor, read: Tensor, weight: Tensor, grad_weight: Tensor) -> Tensor:
    """Add a chunk's gradient of the weight to those so far; returns that of what was read, `[chunk, E]`."""
    grad_read = grad_scores @ weight
    if grad_weight.dtype == read.dtype:
        torch.addmm(grad_weight, grad_scores.t(), read, out=grad_weight)
    else:
        grad_weight += (grad_scores.t() @ read).to(grad_weight.dtype)
    return grad_read


class LMHeadTransform(nn.Module):
    """Transform, layer norm, and a decoder tied to the token embeddings: hidden states `[R, H]` → scores over the
    vocabulary. `nn.Identity` stands for what a model does not have."""

    def __init__(
        self,
        dense: nn.Module,
        activation: Callable[[Tensor], Tensor],
        norm: nn.Module,
        token_embedding: nn.Embedding,
        bias: bool = True,
    ) -> None:
        """dense: `[H] → [E]`, to the width of the token table. bias: of the decoder."""
        super().__init__()
        self.dense = dense
        self.activation = activation
        self.norm = norm
        self.decoder = nn.Linear(token_embedding.embedding_dim, token_embedding.num_embeddings, bias=bias)
        self.decoder.weight = token_embedding.weight

    def forward(self, hidden: Tensor) -> LazyLogits:
        hidden = self.norm(activate(self.dense, self.activation, hidden))
        device = hidden.device.type
        casts = torch.is_autocast_enabled(device)
        return LazyLogits(hidden, self.decoder, torch.get_autocast_dtype(device) if casts else hidden.dtype, casts)
