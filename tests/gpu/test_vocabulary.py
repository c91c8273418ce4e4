"""The cross-entropy of a vocabulary on a GPU is torch's in float64, where the pieces are no multiple of 8 as well."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bothways.model.lm_head import GPU_CHUNK, LazyLogits


@pytest.mark.parametrize("pieces", [400, 403])
@pytest.mark.parametrize("rows", [5, GPU_CHUNK + 3])
def test_cross_entropy_is_torchs(pieces: int, rows: int, device: torch.device) -> None:
    torch.manual_seed(0)
    decoder, hidden, labels = nn.Linear(64, pieces), torch.randn(rows, 64), torch.randint(pieces, (rows,))
    exact = nn.Linear(64, pieces).double()
    exact.load_state_dict(decoder.state_dict())
    read = hidden.double().requires_grad_()
    expected = F.cross_entropy(exact(read), labels, reduction="sum")
    expected.backward()
    decoder.to(device)
    for dtype, tolerance in ((torch.float32, 1e-2), (torch.bfloat16, 5e-2)):
        decoder.zero_grad()
        there = hidden.clone().to(device).requires_grad_()
        loss, _ = LazyLogits(there, decoder, dtype).cross_entropy(labels.to(device))
        loss.backward()
        assert float(loss) == pytest.approx(float(expected), rel=tolerance)
        for found, truth in (
            (there.grad, read.grad), (decoder.weight.grad, exact.weight.grad), (decoder.bias.grad, exact.bias.grad)
        ):  # fmt: skip
            assert found is not None
            assert truth is not None
            assert float((found.cpu().double() - truth).norm() / truth.norm()) < tolerance
