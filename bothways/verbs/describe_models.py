"""What `bothways info` says of models, of runs and of the demo's folder."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.checkpoint.hugging_face import Checkpoint
from bothways.checkpoint.shipped import ShippedModel, read_card
from bothways.checkpoint.unfinished import UnfinishedRunWarning
from bothways.errors import UserError
from bothways.files import read_json
from bothways.model.families import FAMILIES
from bothways.model.pooling import Dense
from bothways.model.task_heads import EmbeddingHead, vector_head
from bothways.pages.display_names import DISPLAY_NAMES, display_name, head_in_words
from bothways.pages.pretraining import epochs_in_words, text_in_words
from bothways.predictor import Predictor, load
from bothways.progress import duration
from bothways.tasks import TASKS
from bothways.tasks.base import shortened_list
from bothways.tasks.objectives import OBJECTIVES
from bothways.text.tokenizer_backend import KINDS_IN_WORDS, MASK
from bothways.train.run import RunDirectory
from bothways.verbs.description import Description, figures_in_words, rounded

SETTINGS = ("lr", "batch_size", "tokens_per_step", "sequence_length", "dropout", "precision", "seed")  # that are shown
DEMO_MODELS = ("pretrained", "read-on", "tickets", "tickets-shipped")


def describe_model_directory(path: Path) -> Description:
    """A Hugging Face or a sentence-transformers directory, ours or not."""
    model = load(str(path))
    kind = "sentence-transformers" if (path / "modules.json").exists() else "Hugging Face"
    lines = [f"{path}: a {kind} directory with a model that {_purpose(model.checkpoint)}", *_model_lines(model)]
    lines += _provenance_lines(model.checkpoint.metadata.get("provenance", {}))
    return Description(lines, _model_facts(path, model), _next_command(path, model))


def describe_shipped_model(shipped: ShippedModel) -> Description:
    """A shipped model by its name, with its card."""
    model = load(shipped.name)
    card = read_card(shipped.directory)
    lines = [f"{shipped.name}: a shipped model that {_purpose(model.checkpoint)}: {shipped.about}"]
    lines += [*_model_lines(model), *(["", *card.splitlines(), ""] if card else [])]
    facts = {"directory": str(shipped.directory), "about": shipped.about, "verbs": list(shipped.verbs), "card": card}
    return Description(
        lines, {**_model_facts(Path(shipped.name), model), **facts}, _next_command(Path(shipped.name), model)
    )


def describe_run(path: Path) -> Description:
    """A run of pretraining or fine-tuning, finished or not."""
    run = RunDirectory(path)
    metrics, described = run.metrics(), run.described()
    if not run.model_path.exists():
        return _describe_unfinished(run, metrics, described)
    model = load(str(path))
    provenance = model.checkpoint.metadata.get("provenance", {})
    last: Mapping[str, Any] = next((line for line in reversed(metrics) if "seconds" in line), {})
    evaluation = read_json(path / "evaluation.json") if (path / "evaluation.json").exists() else {}
    figures = evaluation or next((line for line in reversed(metrics) if _held_out(line)), {})
    lines = [f"{path}: a finished run, whose model {_purpose(model.checkpoint)}", *_model_lines(model)]
    if "best_epoch" in provenance:
        lines.append(f"best epoch: {provenance['best_epoch']}, whose model is kept")
    good = figures_in_words(evaluation or _held_out(figures))
    lines.append(f"held-out: {good or 'not measured, so nobody knows how good it is'}")
    if last:
        done = f"{last['step']:,} steps, {rounded(last['tokens'])} tokens{epochs_in_words(provenance)}"
        lines.append(f"training: {done}, in {duration(last['seconds'])}")
    lines += _provenance_lines(provenance)
    if "command" in described:
        lines.append(f"begun with: {described['command']}")
    if (path / "report.html").exists():
        lines.append(f"as a page: {path / 'report.html'}")
    facts = {"run": str(path), "finished": True, **_model_facts(path, model), "last": last, "evaluation": figures}
    return Description(lines, facts, _next_command(path, model))


def _describe_unfinished(
    run: RunDirectory, metrics: Sequence[Mapping[str, Any]], described: Mapping[str, Any]
) -> Description:
    """A run that was stopped, or is going on now."""
    saved = [int(path.name.removeprefix("step-")) for path in run.checkpoints()]
    done = max([line["step"] for line in metrics] + saved, default=0)
    steps = described.get("options", {}).get("steps") or _steps_in_checkpoint(run)
    of_all = f" of {steps:,}" if steps else ""
    kept = f"; step {saved[-1]:,} is saved" if saved else "; no checkpoint is saved yet"
    lines = [f"{run.path}: a run that has not finished: {done:,}{of_all} steps are done{kept}"]
    trained: Mapping[str, Any] = next((line for line in reversed(metrics) if "loss" in line), {})
    measured: Mapping[str, Any] = next((line for line in reversed(metrics) if _held_out(line)), {})
    if trained:
        lines.append(f"training loss: {trained['loss']:.3f} (step {trained['step']:,})")
    if measured:
        lines.append(f"held-out: {figures_in_words(_held_out(measured))} (step {measured['step']:,})")
    facts = {"run": str(run.path), "finished": False, "step": done, "steps": steps, "run.json": described}
    if (model := _model_so_far(run.path)) is not None:
        used = "best epoch so far" if (run.path / "best").exists() else "last checkpoint"
        lines += [f"as it stands, by its {used}, it {_purpose(model.checkpoint)}", *_model_lines(model)]
        lines += _provenance_lines(model.checkpoint.metadata.get("provenance", {}))
        facts |= _model_facts(run.path, model)
    command = str(described.get("command", ""))
    lines.append("the command that began it goes on with it" + (f": {command}" if command else ""))
    return Description(lines, {**facts, "last": metrics[-1] if metrics else {}}, _as_typed(command))


def _steps_in_checkpoint(run: RunDirectory) -> int | None:
    """The steps of the whole run, as its last checkpoint has them: those of a fine-tuning follow from its rows."""
    states = [path / "state.json" for path in run.checkpoints() if (path / "state.json").exists()]
    steps = read_json(states[-1]).get("data", {}).get("steps") if states else None
    return steps if isinstance(steps, int) else None


def _model_so_far(run: Path) -> Predictor | None:
    """The model of a run that has not finished; None where it has none yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnfinishedRunWarning)  # which is what is told here
            return load(str(run))
    except UserError:
        return None


def _as_typed(command: str) -> str:
    """The command, if a terminal takes it; a call in Python, which is told as such, is nothing to paste there."""
    return command if command.startswith("bothways ") else ""


def describe_demo(path: Path) -> Description:
    """The folder that `bothways demo` fills."""
    options = read_json(path / "demo.json")
    there = [name for name in DEMO_MODELS if (path / name / "model").exists()]
    done = (path / "report.html").exists()
    lines = [f"{path}: what bothways demo made, " + ("finished" if done else "not finished; bothways demo goes on")]
    lines.append(f"options: {', '.join(f'{display_name(name)} {value}' for name, value in options.items())}")
    figures = {}
    for name in there:
        evaluation = path / name / "evaluation.json"
        figures[name] = read_json(evaluation) if evaluation.exists() else {}
        good = figures_in_words(figures[name])
        lines.append(f"{path / name}: a model{f', held-out: {good}' if good else ''}")
    if done:
        lines.append(f"as a page: {path / 'report.html'}")
    command = f"bothways info {shlex.quote(str(path / there[-1]))}" if there else ""
    return Description(lines, {"demo": str(path), "finished": done, "options": options, "models": figures}, command)


def _held_out(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an evaluation among a line's."""
    values = {name.removeprefix("eval_"): value for name, value in line.items() if name.startswith("eval_")}
    return {name: value for name, value in values.items() if isinstance(value, float)}


def _purpose(checkpoint: Checkpoint) -> str:
    """What the model does: "classifies a text"."""
    return head_in_words(type(checkpoint.model.head).__name__, len(checkpoint.metadata.get("labels", ())))


def _model_lines(model: Predictor) -> list[str]:
    """Size, labels, and whether every weight was there."""
    config = model.config
    assert model.report is not None
    family, pieces = FAMILIES[config.model_type].title, KINDS_IN_WORDS[model.tokenizer.kind]
    size = (
        f"{family}, {config.num_hidden_layers} layers of {config.num_attention_heads} heads, {config.hidden_size} "
        f"wide, {rounded(_num_parameters(model))} parameters, {config.vocab_size:,} pieces of {pieces}, "
        f"up to {model.sequence_length:,} tokens, reads {'left to right' if config.is_decoder else 'both ways'}"
    )
    lines = [f"model: {size}"]
    if model.labels:
        kind = model.checkpoint.metadata.get("problem_type")
        lines.append(f"labels: {shortened_list(model.labels)}" + (f" ({DISPLAY_NAMES[kind]})" if kind else ""))
    if (head := vector_head(model.model)) is not None:
        lines += _vector_lines(head, model)
    if model.report.newly_initialised or not model.report.encoder_complete:
        lines.append(f"weights: {model.report.sentence()}")
    return lines


def _vector_lines(head: EmbeddingHead, model: Predictor) -> list[str]:
    """How a text becomes a vector, how vectors are compared, and what may stand before a text."""
    metadata = model.checkpoint.metadata
    products = len([module for module in head.projections if isinstance(module, Dense)])
    parts = [f"{head.size(model.config.hidden_size)} numbers", f"pooled by {' and '.join(head.pool.modes)}"]
    parts += [f"{products} Dense behind that"] if products else []
    parts += ["of length one"] if head.normalize else []
    lines = [f"vectors: {', '.join(parts)}; compared by {metadata.get('similarity', 'cosine')}"]
    if prompts := metadata.get("prompts"):
        default = metadata.get("default_prompt_name")
        lines.append(f"prompts: {', '.join(prompts)}" + (f"; {default} stands before every text" if default else ""))
    return lines


def _provenance_lines(provenance: Mapping[str, Any]) -> list[str]:
    """From what text or tables, with which settings, when and where."""
    lines = []
    if "documents" in provenance:
        lines.append(f"text: {text_in_words(provenance)}")
    if "train" in provenance:
        lines.append(f"fine-tuned from: {provenance.get('model')}")
    lines += [
        f"{display_name(name)}: {provenance[name]}, {provenance[f'{name}_rows']:,} rows"
        for name in ("train", "evaluation")
        if f"{name}_rows" in provenance
    ]
    options = provenance.get("options", {})
    told = [f"{display_name(name)} {_short(options[name])}" for name in SETTINGS if name in options]
    if told:
        lines.append(f"settings: {', '.join(told)}")
    where = [str(provenance[name]) for name in ("date", "machine") if name in provenance]
    versions = [f"{display_name(name)} {provenance[name]}" for name in ("bothways", "torch") if name in provenance]
    return [*lines, f"made: {', '.join([*where, *versions])}"] if where or versions else lines


def _short(value: Any) -> str:
    return rounded(value) if isinstance(value, int | float) else str(value)


def _num_parameters(model: Predictor) -> int:
    return sum(parameter.numel() for parameter in model.model.parameters())


def _model_facts(path: Path, model: Predictor) -> dict[str, Any]:
    """A model's config, size, labels and provenance, by name."""
    assert model.report is not None
    facts: dict[str, Any] = {
        "model": str(path),
        "head": type(model.model.head).__name__,
        "parameters": _num_parameters(model),
        **model.config.to_dict(),
        "tokenizer": model.tokenizer.fingerprint,
        "weights": model.report.sentence(),
    }
    if model.labels:
        facts["labels"] = model.labels
    for name in ("prompts", "default_prompt_name", "similarity"):
        if name in model.checkpoint.metadata:
            facts[name] = model.checkpoint.metadata[name]
    if "provenance" in model.checkpoint.metadata:
        facts["provenance"] = model.checkpoint.metadata["provenance"]
    return facts


def _next_command(path: Path, model: Predictor) -> str:
    """A command that works as it is: the model asked by the verb of its task; where that takes a file, the table that
    it was measured on, if that is still there."""
    metadata = model.checkpoint.metadata
    name = shlex.quote(str(path))
    task = TASKS.get(str(metadata.get("task")))
    if task is not None and "{table}" not in task.next_command:
        return f"bothways {task.next_command.format(model=name)}"
    provenance = metadata.get("provenance", {})
    table, form = provenance.get("evaluation"), provenance.get("options", {}).get("format")
    if table and Path(table).exists():
        return f"bothways evaluate {name} {shlex.quote(table)}" + (f" --format {form}" if form else "")
    abilities = model.model.head.abilities
    if "language-model" in abilities:
        mask = model.tokenizer.roles.get("mask", MASK)
        objective = "causal" if "causal-LM" in abilities else "bert"
        return f"bothways {OBJECTIVES[objective].next_command.format(model=name, mask=mask)}"
    return f'bothways embed {name} "a text of yours"' if "embedding" in abilities else ""
