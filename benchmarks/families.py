"""RoBERTa and ModernBERT against `transformers`, BERT beside them: tokens a second of fine-tuning and of encoding.

    python benchmarks/families.py [--families bert roberta modernbert] [--minutes 30] [--precision bfloat16]
    python benchmarks/families.py --layers 1 --vocabulary 2000 --minutes 1          # a dry run

The models have the shapes of the published base models (`--layers` makes them shallower) and random weights;
vocabularies are learnt from Wikipedia on the spot. Fine-tuning is `classify` on SST-2 and MRPC, 32 rows a step, with
the dropout of each family's config and gradients clipped; encoding is the mean over a text's tokens, of 600 ragged
texts. The peer has `sdpa` attention, fused AdamW, batches of similar lengths (Trainer's `group_by_length`) padded to
their longest row, and both the same token ids, precision and threads. They work in turns, and the ratio is the median
of those of the turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import shared_data, show
from engines import batched, texts
from finetune import DATA
from transformers.trainer_pt_utils import LengthGroupedSampler

import bothways as bw
from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.data.encoded import Encoded, join_segments
from bothways.data.row_plan import RowPlan, RowPlanOptions
from bothways.data.tables import read_rows
from bothways.inference.vectors import sequence_vectors
from bothways.tasks.base import Task
from bothways.text.corpus import CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.sources import resolve_sources
from bothways.text.tokenizer import Tokenizer
from bothways.train.finetune import make_task
from bothways.train.finetune_options import FinetuneOptions, finetuning_loop_options
from bothways.train.step import Stepper

BATCH, LIMIT = 32, 128  # rows of a step, tokens of a row
CHARACTERS_A_PIECE = 120  # of Wikipedia, from which a vocabulary is learnt
TURN_STEPS = 4  # of fine-tuning, of each peer before it is the other's turn
LR = 5e-5
Turn = Callable[[], float]  # works for a while → real tokens a second


@dataclass(frozen=True)
class Shape:
    """A family's base model: classes of `transformers`, what differs from its config's defaults, its vocabulary."""

    name: str
    config: dict[str, Any]
    learn: Callable[..., Tokenizer]
    pieces: int
    dropout: float  # of its config, for hidden states and attention

    def write(self, folder: Path, layers: int | None, pieces: int | None) -> Path:
        """Write a model with random weights and a new vocabulary."""
        size = pieces or self.pieces
        tokenizer = self.learn(lambda: wikipedia(size * CHARACTERS_A_PIECE), size)
        changed = {"num_hidden_layers": layers} if layers else {}
        config = transformers.AutoConfig.for_model(
            self.name, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id, bos_token_id=tokenizer.cls_id,
            eos_token_id=tokenizer.sep_id, cls_token_id=tokenizer.cls_id, sep_token_id=tokenizer.sep_id,
            **{**self.config, **changed},
        )  # fmt: skip
        torch.manual_seed(0)
        directory = folder / self.name
        transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
        tokenizer.save(directory)
        return directory


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("bert", {}, Tokenizer.train, 30_522, 0.1),
        Shape("roberta", {"max_position_embeddings": 514, "type_vocab_size": 1}, Tokenizer.train_byte_bpe, 50_265, 0.1),
        Shape("modernbert", {}, Tokenizer.train_byte_bpe, 50_368, 0.0),
    )
}


def wikipedia(characters: int) -> Iterator[str]:
    """Articles of so many characters together."""
    left, sources = characters, resolve_sources([str(shared_data() / "wikipedia-small.jsonl.zst")])
    for document in read_documents(sources, CorpusOptions(), CorpusReport()):
        if left <= 0:
            return
        left -= len(document.text)
        yield document.text


def rows_of(data: str, tokenizer: Tokenizer) -> tuple[Task, list[Encoded]]:
    """The task fitted to a data set's training rows, and these encoded."""
    rows = read_rows(DATA[data].read(shared_data())[0])
    task = make_task("classify", DATA[data].options).for_columns(rows[0].values).fitted(rows)
    return task, task.add_targets(task.encode(rows, tokenizer, LIMIT), rows)


def tuned_by_bothways(directory: Path, shape: Shape, task: Task, encoded: Sequence[Encoded], precision: Any) -> Turn:
    checkpoint = load_checkpoint(directory, task.head, labels=task.labels, dropout=shape.dropout)
    plan = RowPlan(encoded, task.collate, RowPlanOptions(BATCH), {})
    options = FinetuneOptions(steps=100_000, batch_size=BATCH, lr=LR, precision=precision, device="cpu")
    settings = finetuning_loop_options(options, plan, checkpoint.config.hidden_size)
    stepper, steps = Stepper(checkpoint.model, task, plan, settings), iter(range(100_000))

    def turn() -> float:
        began = time.perf_counter()
        tokens = sum(stepper.step(next(steps)).tokens for _ in range(TURN_STEPS))
        return tokens / (time.perf_counter() - began)

    return turn


def tuned_by_transformers(directory: Path, encoded: Sequence[Encoded], pad_id: int, precision: str) -> Turn:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        directory, attn_implementation="sdpa", num_labels=2, dtype=torch.float32
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
    lengths = [len(sequence.input_ids) for sequence in encoded]
    typed = getattr(model.config, "type_vocab_size", 1) > 1

    def batches() -> Iterator[list[Encoded]]:
        while True:
            order = list(LengthGroupedSampler(BATCH, lengths=lengths))
            for start in range(0, len(order) - BATCH + 1, BATCH):
                yield [encoded[index] for index in order[start : start + BATCH]]

    coming = batches()
    next(coming)  # which has the longest row of all

    def turn() -> float:
        began, tokens = time.perf_counter(), 0
        for _ in range(TURN_STEPS):
            chosen = next(coming)
            inputs = padded_tensors(chosen, pad_id, typed)
            labels = torch.tensor([int(sequence.targets["labels"]) for sequence in chosen])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(**inputs, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens += sum(len(sequence.input_ids) for sequence in chosen)
        return tokens / (time.perf_counter() - began)

    return turn


def padded_tensors(sequences: Sequence[Encoded], pad_id: int, typed: bool) -> dict[str, torch.Tensor]:
    longest = max(len(sequence.input_ids) for sequence in sequences)
    inputs = {
        "input_ids": np.full((len(sequences), longest), pad_id, dtype=np.int64),
        "attention_mask": np.zeros((len(sequences), longest), dtype=np.int64),
        "token_type_ids": np.zeros((len(sequences), longest), dtype=np.int64),
    }
    for row, sequence in enumerate(sequences):
        length = len(sequence.input_ids)
        inputs["input_ids"][row, :length] = sequence.input_ids
        inputs["attention_mask"][row, :length] = 1
        inputs["token_type_ids"][row, :length] = sequence.token_type_ids
    return {name: torch.from_numpy(values) for name, values in inputs.items() if typed or name != "token_type_ids"}


def encoded_by_bothways(directory: Path, encoded: Sequence[Encoded], precision: Any) -> Turn:
    model = bw.load(directory, "cpu", precision)
    return lambda: timed(encoded, lambda: sequence_vectors(model, encoded))


def encoded_by_transformers(directory: Path, encoded: Sequence[Encoded], pad_id: int, precision: str) -> Turn:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    model = transformers.AutoModel.from_pretrained(directory, attn_implementation="sdpa", dtype=dtype).eval()
    typed = getattr(model.config, "type_vocab_size", 1) > 1

    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        ids, mask = (torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask"))
        tensors = {"input_ids": ids.masked_fill(mask == 0, pad_id), "attention_mask": mask}
        types = {"token_type_ids": torch.zeros_like(ids)} if typed else {}
        return np.asarray(model(**tensors, **types).last_hidden_state.float().numpy())

    return lambda: timed(encoded, lambda: batched(encoded, run, by_length=True))


def timed(encoded: Sequence[Encoded], work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return sum(len(sequence.input_ids) for sequence in encoded) / (time.perf_counter() - began)


def in_turns(theirs: Turn, ours: Turn, seconds: float) -> tuple[float, float, float, str, int]:
    """Medians of both in tokens a second, the median ratio, its least and greatest, turns; at least one turn each."""
    theirs(), ours()  # warm
    found: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        found.append((theirs(), ours()))
    ratios = [mine / peer for peer, mine in found]
    peers, mines = zip(*found, strict=True)
    spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
    return statistics.median(peers), statistics.median(mines), statistics.median(ratios), spread, len(found)


def compare(shape: Shape, folder: Path, arguments: argparse.Namespace, seconds: float) -> list[list[Any]]:
    """The rows of a family. seconds: for each of them."""
    directory = shape.write(folder, arguments.layers, arguments.vocabulary)
    tokenizer, rows = Tokenizer.load(directory), []
    for data in arguments.data:
        task, encoded = rows_of(data, tokenizer)
        theirs = tuned_by_transformers(directory, encoded, tokenizer.pad_id, arguments.precision)
        ours = tuned_by_bothways(directory, shape, task, encoded, arguments.precision)
        rows.append([shape.name, f"fine-tuning, {data}", *in_turns(theirs, ours, seconds)])
        print(rows[-1], flush=True)
    lines = join_segments(tokenizer, texts(shared_data(), arguments.texts), 256)
    rows.append([
        shape.name, "encoding",
        *in_turns(
            encoded_by_transformers(directory, lines, tokenizer.pad_id, arguments.precision),
            encoded_by_bothways(directory, lines, arguments.precision),
            seconds,
        ),
    ])  # fmt: skip
    print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--data", nargs="*", choices=["sst2", "mrpc"], default=["sst2", "mrpc"])
    parser.add_argument("--minutes", type=float, default=30, help="for all turns together, about")
    parser.add_argument("--layers", type=int, help="instead of the base model's")
    parser.add_argument("--vocabulary", type=int, help="pieces, instead of the base model's")
    parser.add_argument("--texts", type=int, default=600, help="to encode")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of both")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # a base model of a classifier lacks its head, as it should
    seconds = arguments.minutes * 60 / (len(arguments.families) * (len(arguments.data) + 1))
    rows = []
    with tempfile.TemporaryDirectory(prefix="bothways-families-") as folder:
        for name in arguments.families:
            rows += compare(SHAPES[name], Path(folder), arguments, seconds)
    header = ["family", "what", "transformers, tokens/s", "Bothways, tokens/s", "ratio", "ratios of the turns", "turns"]
    show("families", header, rows, **vars(arguments))


if __name__ == "__main__":
    main()
