"""Pretraining, assembled: store + objective + model → a run's directory with a model that fills masks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import bothways
from bothways.data.objectives import FullSentences, Masker, Masking, Segments, SentencePairs, SpanOptions
from bothways.data.plan import PretrainingPlan
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.model.checkpoint import Checkpoint, load_checkpoint, new_model, save_checkpoint, weights_fingerprint
from bothways.model.config import BertConfig
from bothways.model.heads import Bert
from bothways.tasks.base import Objective
from bothways.tasks.pretraining import BertObjective, MaskedLMObjective
from bothways.train.loop import Stepper, TrainResult, evaluate_objective, train
from bothways.train.options import Precision, TrainOptions, check_seed, choose_device, choose_precision
from bothways.train.progress import Progress
from bothways.train.run import RunDirectory

# Peak learning rates for runs of a few thousand tokens a step; recipes with BERT's large batches say their own.
DEFAULT_LR = ((128, 2e-3), (256, 1e-3), (512, 5e-4), (768, 2e-4), (1024, 1e-4))  # up to this hidden_size


@dataclass(frozen=True)
class PretrainOptions:
    """What `bothways pretrain` can be told.

    size: a new model of this size, its vocabulary the store's. model: continue from this one instead.
    objective: `bert` is masked LM + next sentence on sentence pairs; `mlm` masked LM alone on full sentences.
    short: share of examples built to a random shorter length. validation_tokens: read in each evaluation.
    """

    size: str = "mini"
    model: str | None = None
    objective: Literal["bert", "mlm"] = "bert"
    steps: int = 2000
    tokens_per_step: int = 8192
    sequence_length: int = 128
    lr: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.0
    mask_rate: float = 0.15
    whole_word_masking: bool = False
    short: float = 0.1
    max_position_embeddings: int = 512
    micro_batch_tokens: int = 16384
    log_every: int = 10
    evaluate_every: int | None = None
    validation_tokens: int = 200_000
    checkpoint_every: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"


def pretrain(
    store: str | Path,
    out: str | Path,
    options: PretrainOptions | None = None,
    *,
    progress: Progress | None = None,
) -> TrainResult:
    """Pretrain a BERT on a token store; the same call again resumes a run that was stopped.

    Writes `out/metrics.jsonl`, `out/checkpoints/`, and, when it is done, `out/model/`.
    Raises UserError: a sequence longer than the position table, a model of another vocabulary, another run's directory.
    """
    options = options or PretrainOptions()
    check_seed(options.seed)
    opened = TokenStore(store)
    progress = progress or Progress("pretrain")
    run = RunDirectory(out)
    objective = _objective(options)
    checkpoint = _starting_point(opened, objective, options)
    config = checkpoint.config
    if options.sequence_length > config.max_position_embeddings:
        raise UserError(
            f"--sequence-length {options.sequence_length} is above the position table "
            f"(max_position_embeddings {config.max_position_embeddings})"
        )
    if checkpoint.report is not None:
        progress.say(f"{options.model}: {checkpoint.report.sentence()}")
    plan = make_plan(opened, options)
    plan.description |= {"model": weights_fingerprint(checkpoint.model), "dropout": options.dropout}
    if plan.documents == 1 and options.objective == "bert":
        progress.say(
            f"{opened.directory}: one document only, so every pair is a true next sentence and the next-sentence head "
            "learns nothing; --objective mlm leaves it out"
        )
    loop_options = _loop_options(options, config)
    validation = _validation_plan(opened, options)
    if validation is None:
        progress.say(f"{opened.directory}: no held-out documents to speak of, so nothing is evaluated")

    def evaluate() -> dict[str, float]:
        return {} if validation is None else evaluate_held_out(checkpoint.model, objective, validation, options)

    result = train(checkpoint.model, objective, plan, loop_options, run, progress, evaluate)
    if result.interrupted is None:
        checkpoint.state = {
            "provenance": {
                "bothways": bothways.__version__,
                "store": opened.fingerprint,
                "options": asdict(options),
                "seconds": round(result.seconds, 1),
            }
        }
        save_checkpoint(checkpoint, run.model_path)
    return result


def evaluate_held_out(
    model: Bert, objective: Objective, validation: PretrainingPlan, options: PretrainOptions
) -> dict[str, float]:
    """The objective's means over the held-out documents; of a single one no next-sentence figures, as all its pairs
    are true ones."""
    precision = choose_precision(options.precision, choose_device(options.device))
    batches = validation.first_epoch(options.micro_batch_tokens, options.validation_tokens)
    figures = evaluate_objective(model, objective, batches, precision)
    single = validation.documents == 1
    return {name: value for name, value in figures.items() if not (single and name.startswith("nsp"))}


def measure_speed(store: TokenStore, options: PretrainOptions, steps: int = 8) -> float:
    """Real tokens per second of a few training steps on a throw-away model, after two that warm up."""
    objective = _objective(options)
    model = _starting_point(store, objective, options).model
    stepper = Stepper(model, objective, make_plan(store, options), _loop_options(options, model.config))
    results = [stepper.step(step) for step in range(steps + 2)][2:]
    return sum(result.tokens for result in results) / sum(result.seconds for result in results)


def _objective(options: PretrainOptions) -> MaskedLMObjective:
    return BertObjective() if options.objective == "bert" else MaskedLMObjective()


def make_plan(store: TokenStore, options: PretrainOptions) -> PretrainingPlan:
    """The training batches that these options make of a store."""
    return PretrainingPlan(
        store, _segments(options), _masker(store, options), tokens_per_step=options.tokens_per_step, seed=options.seed
    )


def _validation_plan(store: TokenStore, options: PretrainOptions) -> PretrainingPlan | None:
    if not store.split("validation").tokens:
        return None
    plan = PretrainingPlan(
        store,
        _segments(options),
        _masker(store, options),
        tokens_per_step=options.tokens_per_step,
        seed=0,
        split="validation",
    )
    return plan if plan.has_examples() else None


def _segments(options: PretrainOptions) -> Segments:
    spans = SpanOptions(options.sequence_length, options.short)
    return SentencePairs(spans) if options.objective == "bert" else FullSentences(spans)


def _masker(store: TokenStore, options: PretrainOptions) -> Masker:
    return Masker(Masking(options.mask_rate, whole_word=options.whole_word_masking), store.tokenizer())


def _starting_point(store: TokenStore, objective: MaskedLMObjective, options: PretrainOptions) -> Checkpoint:
    if options.model is None:
        config = BertConfig.from_size(
            options.size,
            vocab_size=store.vocab_size,
            hidden_dropout_prob=options.dropout,
            attention_probs_dropout_prob=options.dropout,
            max_position_embeddings=options.max_position_embeddings,
        )
        return Checkpoint(new_model(config, objective.head, options.seed), store.tokenizer())
    checkpoint = load_checkpoint(options.model, objective.head, dropout=options.dropout, seed=options.seed)
    if checkpoint.tokenizer.fingerprint != store.tokenizer_fingerprint:
        raise UserError(
            f"{store.directory} was prepared with the vocabulary {store.tokenizer_fingerprint}, "
            f"{options.model} has {checkpoint.tokenizer.fingerprint}; prepare the text with --tokenizer {options.model}"
        )
    return checkpoint


def default_lr(hidden_size: int) -> float:
    """The peak learning rate for a model of this width, where the user names none."""
    return next((lr for width, lr in DEFAULT_LR if hidden_size <= width), DEFAULT_LR[-1][1])


def _loop_options(options: PretrainOptions, config: BertConfig) -> TrainOptions:
    tenth = max(1, options.steps // 10)
    return TrainOptions(
        steps=options.steps,
        lr=options.lr if options.lr is not None else default_lr(config.hidden_size),
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        beta2=0.98 if config.hidden_size <= 512 else 0.999,
        clip=options.clip,
        seed=options.seed,
        micro_batch_tokens=options.micro_batch_tokens,
        log_every=options.log_every,
        evaluate_every=tenth if options.evaluate_every is None else options.evaluate_every,
        checkpoint_every=min(500, tenth) if options.checkpoint_every is None else options.checkpoint_every,
        device=options.device,
        precision=options.precision,
    )
