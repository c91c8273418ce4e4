"""`bothways export FORMAT M --out DIR`: a model for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bothways.checkpoint.hugging_face import Checkpoint, save_checkpoint, weights_fingerprint
from bothways.data.encoded import join_segments
from bothways.errors import UserError, as_shown
from bothways.files import read_json, refuse_foreign_files, require_writable
from bothways.inference.agreement import LEAST_COSINE
from bothways.mirrors import output_folder
from bothways.model.heads import Model
from bothways.model.pooling import Pooling
from bothways.model.task_heads import EmbeddingHead, vector_head
from bothways.outputs import made_otherwise, option_changes, require_apart
from bothways.predictor import Predictor, load
from bothways.verbs.flags import parse
from bothways.verbs.options import Positional
from bothways.verbs.printing import say

RECORDED = ("format", "model", "int8", "pooling")  # options that an export's bothways.json has, under "export"
# What an export's directory may hold: what `--overwrite` replaces.
EXPORT_FILES = ("model*.onnx", "model.onnx.data", "model.safetensors", "*.json", "vocab.txt", "*.jinja", "[0-9]_*")


@dataclass(frozen=True)
class ExportArguments:
    """format: onnx, for ONNX Runtime, OpenVINO and optimum; sentence-transformers; or hugging-face, float32 as
    transformers opens it, of a model that is stored otherwise. out: the directory, which has config and tokenizer as
    well.

    int8: with onnx, write `model_quantized.onnx` too. calibrate: with int8, a table or a .txt of texts, on which it is
    compared with float32. pooling: with sentence-transformers, how a model that was not
    trained for vectors makes one of a text; by default the mean.
    """

    format: Positional[Literal["onnx", "sentence-transformers", "hugging-face"]]
    model: Positional[str]
    out: str
    overwrite: bool = False
    int8: bool = False
    calibrate: str | None = None
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
    if options.calibrate and not options.int8:
        raise UserError(f"--calibrate {options.calibrate}: is for export onnx --int8")
    if options.pooling and options.format != "sentence-transformers":
        raise UserError("--pooling: is for export sentence-transformers")
    with output_folder(options.out, EXPORT_FILES) as out:
        _export(options, out)


def _export(options: ExportArguments, out: Path) -> None:
    earlier = _earlier_export(out)
    if options.overwrite:
        require_apart(options.out, [options.model])
    model = load(options.model, "cpu", "int8" if options.calibrate else "auto", options.calibrate)
    model.require_trained("export")
    record = {**{name: getattr(options, name) for name in RECORDED}, "weights": weights_fingerprint(model.model)}
    if earlier and not options.overwrite:
        _require_same(out, earlier, record)
        print(f"{options.out}: done already")
        return
    require_writable(out)
    checkpoint = replace(model.checkpoint, metadata={**model.checkpoint.metadata, "export": record})
    if options.format == "onnx":
        _onnx(checkpoint, out, options.int8)
        if options.calibrate:
            _say_agreement(model, out)
    elif options.format == "sentence-transformers":
        _sentences(checkpoint, out, options.pooling)
    else:
        save_checkpoint(checkpoint, out)
        print(f"{options.out}: opens in transformers, {(out / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


def _earlier_export(directory: Path) -> dict[str, Any]:
    """What an earlier export was made of, empty where there is none.

    Raises UserError for a directory of anything else, a model that is no export say, so that nothing is lost with it.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return {}
    refuse_foreign_files(directory, EXPORT_FILES)
    names = {path.name for path in directory.iterdir()}
    state = read_json(directory / "bothways.json") if "bothways.json" in names else {}
    if "model.onnx" in names and "model.safetensors" not in names:
        return dict(state.get("export", {"format": "onnx"}))  # an earlier Bothways wrote no more
    if "export" not in state:
        raise UserError(f"--out {directory}: is there already, and is not an earlier export; choose another")
    return dict(state["export"])


def _require_same(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changes = option_changes(before, {name: now[name] for name in RECORDED if name != "format"})
    if before["format"] != now["format"]:
        changes.append(f"it was {before['format']}, now {now['format']}")
    if not changes and before.get("weights") != now["weights"]:
        changes.append(f"{now['model']} has changed since")
    if changes:
        raise made_otherwise(out, "an export", changes)


def _onnx(checkpoint: Checkpoint, out: Path, int8: bool) -> None:
    from bothways.inference.onnx import OPSET, PaddedModel, export_onnx

    say("export onnx: some ten seconds")
    done = export_onnx(checkpoint, out, int8)
    names = ", ".join(PaddedModel(checkpoint.model).names)
    size = done.file.stat().st_size / 1e6
    print(f"{as_shown(done.file)}: opset {OPSET}, {names}; batch and length are free; {size:.0f} MB")
    if prompt := checkpoint.metadata.get("prompt"):
        print(
            f"the model was made for texts behind the prompt {prompt!r}: the ONNX model reads tokens, so put it before "
            "every text; sentence-transformers does, by config_sentence_transformers.json"
        )
    print(f"ONNX Runtime's outputs differ from the model's by {done.difference:.1e} at most")
    if done.int8:
        path, cosine = done.int8
        size = path.stat().st_size / 1e6
        print(f"{as_shown(path)}: {size:.0f} MB; cosine with the model's outputs at least {cosine:.4f}")


def _say_agreement(model: Predictor, out: Path) -> None:
    """How near the quantised file is to the model on the user's texts."""
    from bothways.inference.onnx import measure_file

    encoded = join_segments(model.tokenizer, model.calibration or [], model.sequence_length)
    agreement = measure_file(model.model, out / "model_quantized.onnx", encoded)
    print(f"on your texts: {agreement}")
    if not agreement.is_enough:
        print(f"that is below {LEAST_COSINE}: model.onnx is the one to use")


def _sentences(checkpoint: Checkpoint, out: Path, pooling: Pooling | None) -> None:
    head = vector_head(checkpoint.model)
    if head is None:
        encoder = checkpoint.model.encoder
        head = EmbeddingHead(pooling or "mean")
        names = ("provenance", "sequence_length", "export")
        kept = {name: value for name, value in checkpoint.metadata.items() if name in names}
        options = {"pooling": head.pooling, "normalize": head.normalize}
        state = {**kept, "task": "similar", "options": options}
        checkpoint = replace(checkpoint, model=Model(encoder, head), metadata=state)
    elif pooling not in (None, head.pooling):
        raise UserError(f"--pooling {pooling}: this model was trained with {' and '.join(head.pool.modes)}")
    save_checkpoint(checkpoint, out)
    size = head.size(checkpoint.config.hidden_size)
    print(
        f"{as_shown(out)}: opens in sentence-transformers; pooling {' and '.join(head.pool.modes)}, vectors of {size}"
    )
