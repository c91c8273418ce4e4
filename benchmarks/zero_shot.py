"""What a pretrained model knows before any fine-tuning: masked words of held-out text, minimal pairs of grammar, facts
to fill in, and cloze sentences.

Shapes: M masked tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, zstd_lines
from held_out import GENRES, TEXTS, Passage, passages

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded, assemble
from bothways.errors import UserError
from bothways.inference import engine
from bothways.predictor import Predictor
from bothways.text.tokenizer import Pieces, Tokenizer

AMONG = 10  # the likeliest pieces that count as "among ten"
SHOWN = 3  # pieces that are kept of each cloze sentence
TIE = 1e-4  # nats, below which two texts are equally likely: batches of other lengths round otherwise


@dataclass(frozen=True)
class Found:
    """What a model says of a sequence's masked tokens. log_probability: of the text's own tokens, float64 `[M]`.
    rank: how many pieces of the vocabulary are at least as likely, without itself, int64 `[M]`."""

    log_probability: np.ndarray
    rank: np.ndarray


def masked(tokenizer: Tokenizer, pieces: Pieces, hidden: np.ndarray) -> Encoded:
    """A sequence with the pieces at `hidden`, int64 `[M]` ascending, replaced by masks; targets `index`, `labels`."""
    shown = pieces.input_ids.copy()
    shown[hidden] = tokenizer.mask_id
    sequence = assemble(tokenizer, [Pieces(shown, pieces.offsets, pieces.word_ids)], row=0)
    targets = {"index": hidden + len(tokenizer.template.prefix), "labels": pieces.input_ids[hidden]}
    return replace(sequence, targets=targets)


def ask(model: Predictor, sequences: Sequence[Encoded]) -> list[Found]:
    """What the model says of each sequence's masks, in packed batches; in float32, as `fill` and `score` do.

    Raises UserError for scores that are no numbers."""

    def collate(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        lengths = np.array([len(sequence.input_ids) for sequence in encoded])
        begins = np.cumsum(lengths) - lengths
        index = [begin + sequence.targets["index"] for begin, sequence in zip(begins, encoded, strict=True)]
        labels = [sequence.targets["labels"] for sequence in encoded]
        return {"mlm_index": np.concatenate(index), "mlm_labels": np.concatenate(labels)}

    def split(scores: Any, encoded: Sequence[Encoded], batch: PackedBatch) -> list[Found]:
        logits = scores.mlm.logits.float()
        gold = logits.gather(1, batch.targets["mlm_labels"][:, None])
        logs = (gold[:, 0] - logits.logsumexp(-1)).double().cpu()
        ranks = ((logits >= gold).sum(-1) - 1).cpu()
        if not torch.isfinite(logs).all():
            raise UserError(f"{model.checkpoint.source}: the scores are NaN or infinite")
        counts = [len(sequence.targets["index"]) for sequence in encoded]
        return [
            Found(*map(torch.Tensor.numpy, both)) for both in zip(logs.split(counts), ranks.split(counts), strict=True)
        ]

    found: list[Found] = engine.run_batches(model.model, split, sequences, model.device, collate=collate)
    return found


def touched(pieces: Pieces, word: tuple[int, int]) -> np.ndarray:
    """The numbers of the pieces that have characters of a word."""
    start, end = pieces.offsets[:, 0], pieces.offsets[:, 1]
    return np.flatnonzero((start < word[1]) & (end > word[0]) & (end > start))


def held_out(model: Predictor, data: Path, texts: int = TEXTS) -> dict[str, Any]:
    """Masked words of each genre, and the mean over genres: `genre_figures`."""
    genres = {}
    for genre in GENRES:
        genres[genre] = genre_figures(model, passages(data, genre, texts))
        say(f"  {genre}: " + in_short(genres[genre], "accuracy", "word_accuracy", "loss"))
    names = next(iter(genres.values()))
    return {**{name: _mean(figures[name] for figures in genres.values()) for name in names}, "genres": genres}


def genre_figures(model: Predictor, chosen: Sequence[Passage]) -> dict[str, float]:
    """Figures of passages in which all pieces of the chosen words are masks.

    loss: nats a masked piece, and accuracy over pieces: to be compared for the same vocabulary only. word_loss: nats a
    word, the sum over its pieces; word_accuracy: all its pieces right: for all vocabularies. short_accuracy: over the
    words that are a single piece, whose share is short_share. Words with a piece outside the vocabulary are wrong and
    have no loss, and their share is unknown; words behind the model's last position are left out, their share is cut.
    """
    tokenizer = model.tokenizer
    room = model.config.max_sequence_length - tokenizer.num_special_tokens(1)
    words, sequences = [], []
    cut = 0
    for passage, pieces in zip(
        chosen, tokenizer.encode_batch([passage.text for passage in chosen], special_tokens=False), strict=True
    ):
        hidden = [touched(pieces, word) for word in passage.words]
        kept = [of_word for of_word in hidden if len(of_word) and of_word[-1] < room]
        cut += len(hidden) - len(kept)
        if kept:
            together = np.unique(np.concatenate(kept))
            sequences.append(masked(tokenizer, pieces[:room], together))
            words.append([np.searchsorted(together, of_word) for of_word in kept])
    if not sequences:
        raise UserError("held-out text: no word that this model could be asked for")
    figures = _word_figures(ask(model, sequences), sequences, words, tokenizer.unk_id)
    return {**figures, "cut": cut / sum(len(passage.words) for passage in chosen)}


def _word_figures(
    found: Sequence[Found], sequences: Sequence[Encoded], words: Sequence[Sequence[np.ndarray]], unknown: int
) -> dict[str, float]:
    """words: of each sequence, which of its masks are the pieces of each word."""
    right, short, is_unknown, losses = [], [], [], []
    for of_text, sequence, of_words in zip(found, sequences, words, strict=True):
        for at in of_words:
            is_unknown.append(bool((sequence.targets["labels"][at] == unknown).any()))
            short.append(len(at) == 1 and not is_unknown[-1])
            right.append(bool((of_text.rank[at] == 0).all()) and not is_unknown[-1])
            losses.append(-of_text.log_probability[at].sum())
    known = np.concatenate([sequence.targets["labels"] for sequence in sequences]) != unknown
    logs = np.concatenate([of_text.log_probability for of_text in found])
    ranks = np.concatenate([of_text.rank for of_text in found])
    return {
        "loss": float(-logs[known].mean()),
        "accuracy": float((ranks[known] == 0).mean()),
        "word_loss": float(np.array(losses)[~np.array(is_unknown)].mean()),
        "word_accuracy": _mean(right),
        "short_accuracy": float(np.array(right)[np.array(short)].mean()) if any(short) else 0.0,
        "short_share": _mean(short),
        "unknown": _mean(is_unknown),
        "words": float(len(right)),
    }


def pseudo_log_likelihoods(model: Predictor, texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """The pseudo-log-likelihood of each text, float64 `[texts]`: each piece masked alone, and their log-probabilities
    summed (Salazar et al. 2020, "Masked language model scoring", section 2). And how many texts have unknown pieces.

    (`bothways score` masks the later pieces of a word as well, Kauf and Ivanova 2023.)"""
    tokenizer = model.tokenizer
    cut = tokenizer.encode_batch(list(texts), special_tokens=False)
    longest = max(len(pieces.input_ids) for pieces in cut) + tokenizer.num_special_tokens(1)
    if longest > model.config.max_sequence_length:
        raise UserError(f"{model.checkpoint.source}: a pair has {longest} tokens, more than the model has positions")
    copies = [masked(tokenizer, pieces, np.array([n])) for pieces in cut for n in range(len(pieces.input_ids))]
    logs = iter(found.log_probability[0] for found in ask(model, copies))
    sums = np.array([sum(next(logs) for _ in pieces.input_ids) for pieces in cut])
    return sums, sum(tokenizer.unk_id in pieces.input_ids for pieces in cut)


def minimal_pairs(model: Predictor, path: Path, number: int) -> dict[str, Any]:
    """The share of pairs whose good sentence is likelier than the bad, by paradigm and on average; ties are wrong.

    path: jsonl of `good`, `bad` and `uid`, zstd. number: of pairs of a paradigm, drawn with a fixed seed; 0: all.
    """
    paradigms: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in zstd_lines(path):
        pair = json.loads(line)
        paradigms[pair["uid"]].append(pair)
    found, unknown, pairs = {}, 0, 0
    for name, rows in sorted(paradigms.items()):
        chosen = drawn(rows, number)
        sums, of_unknown = pseudo_log_likelihoods(model, [row[side] for row in chosen for side in ("good", "bad")])
        found[name] = float((sums[::2] - sums[1::2] > TIE).mean())
        unknown, pairs = unknown + of_unknown, pairs + len(chosen)
        say(f"  {name}: {found[name]:.3f}")
    return {"accuracy": _mean(found.values()), "pairs": pairs, "unknown": unknown, "paradigms": found}


def drawn(rows: Sequence[Any], number: int) -> list[Any]:
    """So many of the rows in their order, drawn with a fixed seed; all of them for 0."""
    if not 0 < number < len(rows):
        return list(rows)
    chosen = np.random.default_rng(0).choice(len(rows), number, replace=False)
    return [rows[index] for index in sorted(chosen)]


def facts(model: Predictor, folder: Path) -> dict[str, Any]:
    """Facts of LAMA's T-REx (Petroni et al. 2019), by each relation's first pattern: the share that the model has first
    among all pieces, and among ten; means over relations. Only objects that are a single piece are asked for."""
    patterns = {}
    for line in (folder / "patterns-half.jsonl").read_text(encoding="utf-8").splitlines():
        relation = json.loads(line)
        patterns[relation["relation"]] = relation["patterns"][0]
    asked: dict[str, list[Encoded]] = defaultdict(list)
    total = 0
    for row in map(json.loads, zstd_lines(folder / "facts-half.jsonl.zst")):
        total += 1
        if sequence := _asked(model, patterns[row["relation"]], row):
            asked[row["relation"]].append(sequence)
    if not asked:
        raise UserError(f"{folder}: no object is a single piece of this vocabulary")
    first, ten = {}, {}
    for relation, sequences in sorted(asked.items()):
        ranks = np.array([found.rank[0] for found in ask(model, sequences)])
        first[relation], ten[relation] = float((ranks == 0).mean()), float((ranks < AMONG).mean())
    used = sum(map(len, asked.values()))
    counts = {"facts": used, "of": total, "relations": {name: [first[name], ten[name]] for name in first}}
    return {"first": _mean(first.values()), "among_ten": _mean(ten.values()), **counts}


def _asked(model: Predictor, pattern: str, fact: dict[str, str]) -> Encoded | None:
    """The pattern with the subject, and a mask for the object; None where that is not a single piece, or no room."""
    before, _, behind = pattern.partition("[Y]")
    before, behind = (part.replace("[X]", fact["subject"]) for part in (before, behind))
    pieces = model.tokenizer.encode(before + fact["object"] + behind, special_tokens=False)
    hidden = touched(pieces, (len(before), len(before) + len(fact["object"])))
    length = len(pieces.input_ids) + model.tokenizer.num_special_tokens(1)
    single = len(hidden) == 1 and pieces.input_ids[hidden[0]] != model.tokenizer.unk_id
    return masked(model.tokenizer, pieces, hidden) if single and length <= model.config.max_sequence_length else None


def cloze(model: Predictor, path: Path = HERE / "cloze.tsv") -> dict[str, Any]:
    """The sentences of general knowledge in a file of `sentence TAB answer, answer, …`: how many answers the model has
    first, and among ten; and what it said of each. Answers that are no single piece cannot be found, and count."""
    mask = model.tokenizer.token(model.tokenizer.mask_id)
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    said = []
    for (sentence, listed), fills in zip(
        lines, model.fill([sentence.replace("[MASK]", mask) for sentence, _ in lines], top_k=AMONG), strict=True
    ):
        answers = [answer.strip() for answer in listed.split(",")]
        words = [fill.token.lstrip("Ġ▁").lower() for fill in fills[0]]
        place = next((n for n, word in enumerate(words, 1) if word in answers), None)
        likeliest = [[word, round(fill.probability, 4)] for word, fill in zip(words, fills[0], strict=True)]
        said.append({"sentence": sentence, "answers": answers, "place": place, "said": likeliest[:SHOWN]})
    places = [line["place"] for line in said]
    hits = {"first": places.count(1) / len(said), "among_ten": _mean(place is not None for place in places)}
    return {**hits, "sentences": said}


def cloze_lines(figures: dict[str, Any]) -> list[str]:
    """What a model said of each cloze sentence, hit or miss."""
    lines = []
    for line in figures["sentences"]:
        verdict = "hit " if line["place"] == 1 else f"{line['place']:>3}." if line["place"] else "miss"
        said = ", ".join(f"{word} {probability:.0%}" for word, probability in line["said"])
        lines.append(f"  {verdict}  {line['sentence']}  →  {said}  ({', '.join(line['answers'])})")
    return lines


# By name, what is measured: (model, data folder, pairs of a paradigm) → figures.
MEASURES: dict[str, Callable[[Predictor, Path, int], dict[str, Any]]] = {
    "held-out": lambda model, data, pairs: held_out(model, data),
    "cloze": lambda model, data, pairs: cloze(model),
    "facts": lambda model, data, pairs: facts(model, data / "eval-lama-trex"),
    "zorro": lambda model, data, pairs: minimal_pairs(model, data / "eval-zorro" / "zorro.jsonl.zst", pairs),
    "blimp": lambda model, data, pairs: minimal_pairs(model, data / "eval-blimp" / "blimp-half.jsonl.zst", pairs),
}


def in_short(figures: dict[str, float], *names: str) -> str:
    return ", ".join(f"{name} {figures[name]:.3f}" for name in names)


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
