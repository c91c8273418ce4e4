"""In a training step on a GPU each layer is one graph to torch.compile, with FlashAttention in it, and all layers share
it: traced here without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bothways.checkpoint.hugging_face import new_model
from bothways.model import attention
from bothways.model.kernels import varlen
from bothways.tasks.pretraining import BertObjective
from bothways.train import step as steps
from tests.helpers import random_batch, tiny_config


def test_the_layers_of_a_step_on_a_gpu_share_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_varlen(q: Tensor) -> bool:
        """As of a tensor on a GPU."""
        return q.dtype == torch.bfloat16 and q.shape[-1] in varlen.HEAD_SIZES and varlen._runs_flash(0)

    def keep(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        """In place of the kernel, which only a GPU has, its queries."""
        (kernel,) = (node for node in graph.graph.nodes if "_flash_attention_forward" in str(node.target))
        kernels.append(kernel.args)
        (attended,) = kernel.users  # the first of its results
        attended.replace_all_uses_with(kernel.args[0])
        graph.graph.erase_node(attended)
        graph.graph.erase_node(kernel)
        graph.recompile()
        return graph.forward

    kernels: list[Any] = []
    monkeypatch.setattr(attention, "has_varlen", has_varlen)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    compile_layer = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda layer, **options: compile_layer(layer, backend=keep, fullgraph=True, **options),
    )
    config = tiny_config(num_hidden_layers=5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    objective = BertObjective()
    model = new_model(config, objective.head, seed=0).train()
    steps._compile_layers(model)
    sums = steps._Sums(model, objective, torch.bfloat16)
    for lengths in ([9, 20, 5], [30, 4, 11], [17, 17, 2]):
        batch = random_batch(lengths, config.vocab_size)
        batch.targets = {
            "mlm_index": torch.tensor([3, 8, 20]),
            "mlm_labels": torch.tensor([7, 8, 9]),
            "next_sentence_label": torch.tensor([0, 1, 0]),
        }
        found = sums(batch)
        (found["mlm_loss"] + found["nsp_loss"]).backward()
    torch._dynamo.reset()
    assert len(kernels) == 2  # of the last layer, which finishes only the tokens that a head reads, and of all others
    assert all(arguments[7] == 0.0 for arguments in kernels)  # the rate of dropout, a constant
    assert all(weight.grad is not None for weight in model.encoder.layers.parameters())
