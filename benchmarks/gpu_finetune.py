"""Fine-tuning on a GPU (a part of `gpu_all.py`): seconds of the same steps beside `transformers.Trainer`, in bfloat16.

SST-2 and SQuAD of `--data`, or rows of random words with their lengths: sentences of a median of eight words, and
questions on paragraphs of 60 to 250. Contestants, precision and hyperparameters are those of `finetune.py`; Trainer
pads to the longest of a batch.
"""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_parts import PartRun
from random_text import random_tokenizer

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.model.config import EncoderConfig
from bothways.model.families import head_builder
from bothways.precision import TrainingPrecision
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions

WARM_UP = 5  # steps of an own run, which loads the kernels


@dataclass(frozen=True)
class Job:
    """data: its name in `finetune.DATA`. steps: that are measured."""

    data: str
    task: str
    steps: int
    limit: int = 128
    batch: int = 32


JOBS = (Job("sst2", "classify", 150), Job("squad1", "answer", 60, limit=384))


def run(part: PartRun) -> None:
    precision: TrainingPrecision = "bfloat16" if torch.cuda.is_available() else "float32"
    peers = all(map(importlib.util.find_spec, ("transformers", "accelerate")))
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = 400 if part.tiny else 30522
        tokenizer = random_tokenizer(vocabulary)
        config = EncoderConfig.from_size("tiny" if part.tiny else "base", vocab_size=vocabulary)
        directory = Path(folder) / "model"
        save_checkpoint(Checkpoint(new_model(config, head_builder("pretraining"), seed=0), tokenizer), directory)
        for job in JOBS:
            job = replace(job, steps=2, batch=4) if part.tiny else job
            rows, real = _rows(part, job, vocabulary)
            ours = 0.0
            for name in ("Bothways", "Trainer") if peers else ("Bothways",):
                case = {"data": job.data, "real": real, "contestant": name}
                seconds_of = _with_bothways if name == "Bothways" else _with_trainer
                if part.left < 5:
                    part.tell(**case, left_out=f"{part.left:.0f} s left")
                    continue
                with part.attempt(**case):
                    if not part.tiny:
                        seconds_of(job, rows, directory, WARM_UP, precision)
                    seconds = seconds_of(job, rows, directory, job.steps, precision)
                    ours = ours or seconds
                    rate = job.steps * job.batch / seconds
                    part.tell(
                        **case, seconds=seconds, rows_per_second=rate, times_our_seconds=seconds / ours,
                        precision=precision,
                    )  # fmt: skip


def _with_bothways(
    job: Job, rows: list[dict[str, Any]], model: Path, steps: int, precision: TrainingPrecision
) -> float:
    options = FinetuneOptions(
        steps=steps, batch_size=job.batch, lr=5e-5, sequence_length=job.limit, precision=precision
    )
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(job.task, model, rows, None, Path(folder) / "run", options, quiet=True)
    return result.training.seconds


def _with_trainer(job: Job, rows: list[dict[str, Any]], model: Path, steps: int, precision: TrainingPrecision) -> float:
    import finetune as contest  # needs transformers

    contest.minilm = lambda: model
    contest.DATA |= {job.data: contest.Data(job.task, contest.sst2, "accuracy", batch=job.batch, limit=job.limit)}
    return contest.with_transformers(job.data, rows, [], 0, steps, precision).seconds


def _rows(part: PartRun, job: Job, vocabulary: int) -> tuple[list[dict[str, Any]], bool]:
    """As many rows as the steps need, and whether they are real."""
    number = job.steps * job.batch
    if part.data is not None:
        import finetune as contest

        train, _ = contest.DATA[job.data].read(part.data)
        return train[:number], True
    generator = np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(f"w{n}" for n in generator.integers(0, vocabulary - 10, max(1, count)))

    if job.task == "classify":
        lengths = np.minimum(generator.lognormal(np.log(8), 0.75, number), 50).astype(int)
        return [{"text": words(length), "label": str(n % 2)} for n, length in enumerate(lengths.tolist())], False
    rows = []
    for length in generator.integers(60, 250, number).tolist():
        context = words(length)
        start = len(" ".join(context.split()[: length // 2])) + 1
        answer = {"text": " ".join(context[start:].split()[:3]), "answer_start": start}
        rows.append({"context": context, "question": words(11), "answers": [answer]})
    return rows, False
