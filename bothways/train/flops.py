"""What a training step costs in floating-point operations, the numerator of "fraction of peak".

Shapes: T tokens, R of them that the head reads, N sequences, H hidden, I intermediate, L layers, V vocabulary, M tokens
with scores over the vocabulary.
"""

from __future__ import annotations

from torch import nn

from bothways.batch import PackedBatch
from bothways.model.encoder import Layer
from bothways.model.heads import Model


def training_flops(model: Model, batch: PackedBatch) -> float:
    """Floating-point operations of a forward and backward pass over a batch, matrix products alone.

    3 × [2·(L·T·3H² + ((L-1)·T + R)·(H² + 2H·I)) + 4·L·H·Σ length² + 2·M·(H² + H·V)]: a product of `[m, k]` and `[k, n]`
    is 2·m·k·n, its backward pass twice that (Kaplan et al. 2020, section 2.1, with everything counted as it is run: the
    last layer beyond its attention on the tokens that the head reads, the masked-LM head on masked tokens; causal
    attention as if it were full). Sizes are those of the modules, a layer that runs twice is counted twice.
    Element-wise work, the optimizer and the small heads are not counted.
    """
    head, tokens = model.head, batch.num_tokens
    read = head.reads(batch)
    pairs = float((batch.lengths.double() ** 2).sum())
    last = len(model.encoder.order) - 1
    total = 0.0
    for number, layer in enumerate(model.encoder.layers_in_order()):
        finished = tokens if number < last or read is None else len(read)
        total += _layer_flops(layer, tokens, finished, pairs)
    total += 2 * head.num_scored(batch) * sum(_weights(part) for name, part in head.named_children() if name == "lm")
    return 3 * total + sum(training_flops(helper, batch) for helper in head.helpers())


def _layer_flops(layer: Layer, tokens: int, finished: int, pairs: float) -> float:
    """A layer's forward pass; finished: tokens for which it does not stop after attention; pairs: Σ length²."""
    attention = layer.attention
    behind = _weights(attention.output) + _weights(layer.intermediate) + _weights(layer.output)
    linear = 2 * (tokens * _weights(attention.qkv) + finished * behind)
    return linear + 4 * attention.num_heads * attention.head_size * pairs


def _weights(module: nn.Module) -> int:
    """Numbers in the matrices of a module's linear layers."""
    return sum(linear.weight.numel() for linear in module.modules() if isinstance(linear, nn.Linear))
