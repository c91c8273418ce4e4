"""The fused cross-entropy is torch's, in value and in every gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bothways.model import lm_head as vocabulary
from bothways.model.lm_head import CHUNK, LazyLogits


@pytest.mark.parametrize("multiple_of", [1, 8])  # of 50 pieces; a GPU's products have some more
@pytest.mark.parametrize("rows", [1, CHUNK, CHUNK + 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_cross_entropy_is_torchs(
    rows: int, dtype: torch.dtype, tolerance: float, multiple_of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vocabulary.MULTIPLE_OF, "cpu", multiple_of)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    torch.manual_seed(0)
    decoder = nn.Linear(16, 50).to(kept)
    hidden, labels = torch.randn(rows, 16, dtype=kept), torch.randint(50, (rows,))
    found, expected = [], []
    for results, fused in ((found, True), (expected, False)):
        decoder.zero_grad()
        read = hidden.clone().requires_grad_()
        if fused:
            loss, right = LazyLogits(read, decoder, dtype).cross_entropy(labels)
        else:
            logits = decoder(read)
            loss, right = F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(-1) == labels).sum()
        (loss / 3).backward()
        results += [loss.detach() / rows, read.grad, decoder.weight.grad / rows, decoder.bias.grad / rows, right]
    for one, other in zip(found[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
    assert abs(int(found[-1]) - int(expected[-1])) <= (0 if dtype != torch.bfloat16 else rows // 20 + 1)


def test_without_gradients_none_are_made_and_the_logits_are_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, hidden, labels = nn.Linear(8, 20), torch.randn(5, 8), torch.arange(5)
    monkeypatch.setattr(vocabulary, "_accumulate", lambda *_: pytest.fail("a gradient that nobody asked for"))
    with torch.no_grad():
        scores = LazyLogits(hidden, decoder, torch.float32)
        loss, _ = scores.cross_entropy(labels)
        torch.testing.assert_close(scores.logits, decoder(hidden))
        torch.testing.assert_close(loss, F.cross_entropy(decoder(hidden), labels, reduction="sum"))
    assert not loss.requires_grad


def test_log_probabilities_of_given_ids_are_the_softmaxs() -> None:
    torch.manual_seed(0)
    decoder, hidden = nn.Linear(8, 20), torch.randn(CHUNK + 3, 8)
    labels = torch.randint(20, (CHUNK + 3,))
    logs, right = LazyLogits(hidden, decoder, torch.float32).log_probabilities(labels)
    expected = decoder(hidden).log_softmax(-1).detach()
    torch.testing.assert_close(logs, expected.gather(1, labels[:, None])[:, 0])
    assert torch.equal(right, expected.argmax(-1) == labels)
