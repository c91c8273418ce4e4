"""`bothways export FORMAT M --out DIR`: a model for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from bothways.checkpoint.hugging_face import Checkpoint, save_checkpoint
from bothways.errors import UserError
from bothways.files import require_writable
from bothways.model.heads import EmbeddingHead, Model, Pooling
from bothways.predictor import load
from bothways.verbs.flags import parse
from bothways.verbs.printing import say


@dataclass(frozen=True)
class ExportArguments:
    """format: onnx, for ONNX Runtime, OpenVINO and optimum; or sentence-transformers. out: the directory, which has
    config and tokenizer as well.

    int8: with onnx, write `model_quantized.onnx` too. pooling: with sentence-transformers, how a model that was not
    trained for vectors makes one of a text: mean or cls.
    """

    format: Positional[Literal["onnx", "sentence-transformers"]]
    model: Positional[str]
    out: str
    int8: bool = False
    pooling: Pooling | None = None


def run_export(arguments: Sequence[str]) -> None:
    """`bothways export FORMAT M --out DIR`."""
    options = parse(
        "export",
        ExportArguments,
        arguments,
        "Write a model for other programs. Example: bothways export onnx tickets --out tickets-onnx",
    )
    if options.int8 and options.format != "onnx":
        raise UserError("--int8: is for export onnx")
    if options.pooling and options.format != "sentence-transformers":
        raise UserError("--pooling: is for export sentence-transformers")
    out = Path(options.out)
    if out.is_file() or (out.exists() and any(out.iterdir()) and not (options.format == "onnx" and _is_export(out))):
        raise UserError(f"--out {out}: is there already, and is not an earlier export; name another")
    model = load(options.model, "cpu")
    model.require_trained("export")
    checkpoint = model.checkpoint
    require_writable(out)
    _onnx(checkpoint, out, options.int8) if options.format == "onnx" else _sentences(checkpoint, out, options.pooling)


def _is_export(directory: Path) -> bool:
    """Whether a directory holds a model as ONNX and in no other form, so that nothing is lost with it."""
    names = {path.name for path in directory.iterdir()}
    return {"model.onnx", "bothways.json"} <= names and not names & {"model.safetensors", "pytorch_model.bin"}


def _onnx(checkpoint: Checkpoint, out: Path, int8: bool) -> None:
    from bothways.inference.onnx import OPSET, PaddedModel, export_onnx

    say("export onnx: some ten seconds")
    done = export_onnx(checkpoint, out, int8)
    names = ", ".join(PaddedModel(checkpoint.model).names)
    size = done.file.stat().st_size / 1e6
    print(f"{done.file}: opset {OPSET}, {names}; batch and length are free; {size:.0f} MB")
    print(f"ONNX Runtime's outputs differ from the model's by {done.difference:.1e} at most")
    if done.int8:
        path, cosine = done.int8
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB; cosine with the model's outputs at least {cosine:.4f}")


def _sentences(checkpoint: Checkpoint, out: Path, pooling: Pooling | None) -> None:
    head = checkpoint.model.head
    if head.pooling is None:
        encoder = checkpoint.model.encoder
        head = EmbeddingHead(pooling or "mean")
        kept = {name: value for name, value in checkpoint.metadata.items() if name in ("provenance", "sequence_length")}
        options = {"pooling": head.pooling, "normalize": head.normalize}
        state = {**kept, "task": "similar", "options": options}
        checkpoint = replace(checkpoint, model=Model(encoder, head), metadata=state)
    elif pooling not in (None, head.pooling):
        raise UserError(f"--pooling {pooling}: this model was trained with {head.pooling}")
    save_checkpoint(checkpoint, out)
    print(f"{out}: opens in sentence-transformers; pooling {head.pooling}, vectors of {checkpoint.config.hidden_size}")
