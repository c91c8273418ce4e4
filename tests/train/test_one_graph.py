"""A training step on a GPU is one graph to torch.compile, with FlashAttention in it: traced here without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bothways.checkpoint.hugging_face import new_model
from bothways.model import attention
from bothways.model.kernels import varlen
from bothways.tasks.pretraining import BertObjective
from bothways.train.step import _Sums
from tests.helpers import random_batch, tiny_config


class Traced(Exception):  # noqa: N818 — ends the compilation when there is a graph
    pass


def test_a_step_on_a_gpu_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_varlen(q: Tensor) -> bool:
        """As of a tensor on a GPU."""
        return q.dtype == torch.bfloat16 and q.shape[-1] in varlen.HEAD_SIZES and varlen._runs_flash(0)

    def keep(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(graph.graph)
        raise Traced

    graphs: list[torch.fx.Graph] = []
    monkeypatch.setattr(attention, "has_varlen", has_varlen)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    config = tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    objective = BertObjective()
    batch = random_batch([9, 20, 5], config.vocab_size)
    batch.targets = {
        "mlm_index": torch.tensor([3, 8, 20]),
        "mlm_labels": torch.tensor([7, 8, 9]),
        "next_sentence_label": torch.tensor([0, 1, 0]),
    }
    step = _Sums(new_model(config, objective.head, seed=0).train(), objective, torch.bfloat16)
    with pytest.raises(Exception, match="Traced"):
        torch.compile(step, backend=keep, dynamic=True, fullgraph=True)(batch)
    torch._dynamo.reset()
    (graph,) = graphs
    kernels = [node for node in graph.nodes if "_flash_attention_forward" in str(node.target)]
    assert len(kernels) == config.num_hidden_layers
    assert all(node.args[7] == 0.0 for node in kernels)  # the rate of dropout, a constant
