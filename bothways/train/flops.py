"""What a training step costs, and what the machine could do: the two halves of "fraction of peak".

Shapes: T tokens, R of them that the head reads, N sequences, H hidden, I intermediate, L layers, V vocabulary, M rows
with scores over the vocabulary.
"""

from __future__ import annotations

from bothways.batch import PackedBatch
from bothways.model.heads import CausalLMHead, Model


def training_flops(model: Model, batch: PackedBatch) -> float:
    """Floating-point operations of a forward and backward pass over a batch, matrix products alone.

    3 × [2·(L·T·3H² + ((L-1)·T + R)·(H² + 2H·I)) + 4·L·H·Σ length² + 2·M·(H² + H·V)]: a product of `[m, k]` and `[k, n]`
    is 2·m·k·n, its backward pass twice that (Kaplan et al. 2020, section 2.1, with everything counted as it is run: the
    last layer beyond its attention on the tokens that the head reads, the masked-LM head on masked tokens; causal
    attention as if it were full).
    Element-wise work, the optimizer and the small heads are not counted.
    """
    config, head = model.config, model.head
    hidden, layers, tokens = config.hidden_size, config.num_hidden_layers, batch.num_tokens
    read = head.reads(batch)
    finished = (layers - 1) * tokens + (tokens if read is None else len(read))
    linear = 2 * (layers * tokens * 3 * hidden**2 + finished * (hidden**2 + 2 * hidden * config.intermediate_size))
    attention = 4 * layers * hidden * float((batch.lengths.double() ** 2).sum())
    scored = batch.targets["mlm_index"].shape[0] if "mlm_index" in batch.targets else 0
    if isinstance(head, CausalLMHead):
        scored = tokens if read is None else len(read)
    decoder = 2 * scored * (hidden**2 + hidden * config.vocab_size)
    return 3.0 * (linear + attention + decoder)
