"""Multiple choice and sentence embeddings, against transformers and sentence-transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer, losses
from transformers import AutoTokenizer, BertForMultipleChoice

import bothways as bw
from bothways.checkpoint.weights import MODEL_FILES, SENTENCE_FILES
from bothways.data.tables import Row, read_rows
from bothways.errors import TruncationWarning, UserError
from bothways.tasks.choose import ChooseTask
from bothways.tasks.metrics import correlations
from bothways.tasks.similar import ContrastTask, Similarity, SimilarTask
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from tests.helpers import hugging_face_config, tiny_config, tiny_tokenizer

CHOICES = [
    {"text": f"the {colour} {animal} runs.", "choices": ["a bird eats.", f"the {animal} sleeps.", "a"], "label": 1}
    for colour in ("red", "blue", "old", "new")
    for animal in ("dog", "cat")
]
PAIRS = [
    {"text": f"the {a} runs.", "pair": f"a {b} sleeps.", "score": 5.0 if a == b else 0.0}
    for a in ("dog", "cat", "bird", "house")
    for b in ("dog", "cat", "bird", "house")
]


def test_choices_learn_save_and_open_in_transformers(pretrained: Path, tmp_path: Path) -> None:
    two = {"text": "the dog runs.", "choices": ["the dog sleeps.", "a bird eats."], "label": "the dog sleeps."}
    rows = [*CHOICES, two]
    options = FinetuneOptions(epochs=20, batch_size=4, lr=2e-3, dropout=0.0, precision="float32")
    result = finetune("choose", pretrained, rows, rows, tmp_path / "run", options)
    assert result.metrics == {"accuracy": 1.0}
    model = bw.load(tmp_path / "run")
    choice = model.choose(CHOICES[0]["text"], CHOICES[0]["choices"])
    assert (choice.index, choice.text) == (1, "the dog sleeps.")
    theirs = BertForMultipleChoice.from_pretrained(tmp_path / "run" / "model").eval()
    logits = []
    for one in CHOICES[0]["choices"]:
        row = Row({"text": CHOICES[0]["text"], "choices": [one, one]}, "row 1")
        encoded = ChooseTask().encode([row], tiny_tokenizer(), 64)[0]
        inputs = {
            "input_ids": torch.from_numpy(encoded.input_ids)[None, None],
            "token_type_ids": torch.from_numpy(encoded.token_type_ids)[None, None],
        }
        with torch.inference_mode():
            logits.append(theirs(**inputs).logits[0, 0])
    assert torch.stack(logits).softmax(0).tolist() == pytest.approx(choice.probabilities, abs=1e-5)


def test_choices_of_different_number_have_the_loss_of_each() -> None:
    task, tokenizer = ChooseTask(), tiny_tokenizer()
    rows = read_rows([CHOICES[0], {"text": "a", "choices": ["b", "c"], "label": 0}, CHOICES[3]])
    encoded = task.add_targets(task.encode(rows, tokenizer, 64), rows)
    order = np.random.default_rng(0).permutation(len(encoded))
    scores = torch.randn(len(encoded))
    shuffled = [encoded[index] for index in order]
    targets = {name: torch.from_numpy(value) for name, value in task.collate(shuffled).items()}
    expected = 0.0
    for number, row in enumerate(rows):
        own = torch.tensor([float(scores[n]) for n, one in enumerate(encoded) if one.row == number])
        expected -= float(own.log_softmax(0)[task.gold(row)])
    assert float(task.sums(scores[torch.from_numpy(order)], targets)["loss"]) == pytest.approx(expected, rel=1e-5)
    assert task.counts(targets)["loss"] == 3


def test_refused_choices() -> None:
    task = ChooseTask()
    assert task.gold(Row({"choices": ["2", "0", "1"], "label": "0"}, "row 1")) == 0  # a number is a place
    assert task.gold(Row({"choices": ["two ", "0", "1"], "label": " two"}, "row 1")) == 0
    for values, message in (
        ({"choices": ["a"], "label": 0}, "1 choices in choices, expected two or more"),
        ({"choices": ["a", ""], "label": 0}, "a choice is ''"),
        ({"choices": ["a", "b"], "label": 2}, "label '2' is neither one of the 2 choices nor its number, 0 to 1"),
        ({"choices": "ab", "label": 2}, "column 'choices' is 'ab', not a list"),
        ({"choices": ["a", "a"], "label": "a"}, "label 'a' may mean the choices 0, 1"),
    ):
        with pytest.raises(UserError, match=message):
            task.check(Row({"text": "x", **values}, "row 1"))


def test_embeddings_are_those_of_sentence_transformers(minilm: Path) -> None:
    model, theirs = bw.load(minilm), SentenceTransformer(str(minilm), device="cpu")
    texts = ["No light on my router.", "a", "Ünïcode — 👍", "the invoice " * 50]
    ours = model.embed(texts)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs.encode(texts)).max() < 1e-5
    assert np.abs(model.embed(texts[::-1])[::-1] - ours).max() < 1e-5
    plain = model.embed(texts, normalize=False)
    assert np.allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), ours, atol=1e-6)
    with pytest.warns(TruncationWarning, match="1 of 1 texts are longer than 256 tokens"):
        model.embed("word " * 400)
    matches = model.similar("wifi is slow", ["the bill is wrong", "the wireless crawls"], top_k=5)
    assert [one.index for one in matches] == [1, 0]
    cosine = float(model.embed("wifi is slow") @ model.embed("the wireless crawls"))
    assert matches[0].cosine == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False)])
def test_what_we_save_opens_in_sentence_transformers(
    pooling: str, normalize: bool, pretrained: Path, tmp_path: Path
) -> None:
    options = FinetuneOptions(epochs=12, batch_size=8, lr=2e-3, dropout=0.0, sequence_length=64, precision="float32")
    result = finetune(
        "similar", pretrained, PAIRS, PAIRS, tmp_path / "run", options, pooling=pooling, normalize=normalize
    )
    assert result.metrics is not None
    assert result.metrics["spearman"] > 0.6
    model, theirs = bw.load(tmp_path / "run"), SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    assert theirs.max_seq_length == 64
    texts = ["the dog runs.", "a cat sleeps in a house.", "the bird eats. " * 40]
    with pytest.warns(TruncationWarning):
        model.embed(texts)
    assert np.abs(model.embed(texts, normalize=normalize) - theirs.encode(texts)).max() < 1e-5
    theirs.save(str(tmp_path / "saved"))
    again = bw.load(tmp_path / "saved")
    assert again.sequence_length == 64
    assert np.abs(again.embed(texts) - model.embed(texts)).max() < 1e-5


def test_losses_are_those_of_sentence_transformers() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(6, 8), torch.randn(6, 8)
    vectors = torch.stack([a, b], 1).flatten(0, 1)
    pairs = torch.arange(12).reshape(6, 2)
    scores = torch.rand(6)
    ranking = losses.MultipleNegativesRankingLoss(model=None, scale=20.0)
    expected = ranking.compute_loss_from_embeddings([a, b], None)
    contrast = ContrastTask()
    ours = contrast.sums(vectors, {"pairs": pairs, "texts": torch.arange(12)})["loss"] / 6
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    mse = torch.nn.functional.mse_loss(torch.cosine_similarity(a, b), scores)
    scored = SimilarTask()
    ours = scored.sums(vectors, {"pairs": pairs, "scores": scores})["loss"] / 6
    assert ours.item() == pytest.approx(mse.item(), rel=1e-5)


def test_contrast_learns_and_does_not_depend_on_the_cut(pretrained: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "pair": row["pair"]} for row in PAIRS if row["score"]]
    options = FinetuneOptions(epochs=10, batch_size=4, lr=2e-3, dropout=0.0, precision="float32")
    result = finetune("similar", pretrained, rows, rows, tmp_path / "a", options)
    assert result.metrics is not None
    assert result.metrics["accuracy"] == 1.0
    cut = FinetuneOptions(**{**vars(options), "micro_batch_tokens": 8})
    again = finetune("similar", pretrained, rows, rows, tmp_path / "b", cut)
    assert again.metrics == result.metrics
    scored = finetune("similar", pretrained, rows, PAIRS, tmp_path / "c", FinetuneOptions(steps=1))
    assert scored.metrics is not None
    assert "spearman" in scored.metrics  # trained on pairs, measured on scores


def test_a_pair_that_is_the_same_text_is_its_own_nearest() -> None:
    """Whatever rounding does: with 1,500 vectors of 384 no other may win by its last bit."""
    vectors = np.random.default_rng(0).normal(size=(1500, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    task = ContrastTask()
    rows = read_rows([{"text": f"a{n}", "pair": f"b{n}"} for n in range(1500)])
    predictions = [Similarity(1.0, np.stack([vector, vector])) for vector in vectors]
    assert task.metrics(predictions, rows) == {"accuracy": 1.0, "mrr": 1.0}


# The rows of a step by their texts, and for each row the rows whose pair it is told from: never one whose pair is its
# own pair (1), belongs to the same text (2), or is the text itself (3).
STEPS = {
    "one answer to two questions": ([("q", "x"), ("r", "x"), ("s", "y")], [{0, 2}, {1, 2}, {0, 1, 2}]),
    "two answers to one question": ([("q", "x"), ("q", "y"), ("s", "z")], [{0, 2}, {1, 2}, {0, 1, 2}]),
    "pairs both ways": ([("q", "x"), ("x", "q"), ("s", "z")], [{0, 2}, {1, 2}, {0, 1, 2}]),
    "the same row twice": ([("q", "x"), ("q", "x"), ("s", "z")], [{0, 2}, {1, 2}, {0, 1, 2}]),
    "all different": ([("q", "x"), ("r", "y"), ("s", "z")], [{0, 1, 2}, {0, 1, 2}, {0, 1, 2}]),
    "nothing but one answer": ([("q", "x"), ("r", "x")], [{0}, {1}]),
}


@pytest.mark.parametrize("name", STEPS)
def test_equal_texts_of_a_step_are_not_each_others_negatives(name: str) -> None:
    texts, compared = STEPS[name]
    rows = read_rows([{"text": text, "pair": pair} for text, pair in texts])
    task, tokenizer = ContrastTask(), tiny_tokenizer()
    words = ["the dog", "a cat", "the house", "red", "blue", "old"]  # tiny_tokenizer knows words, not letters
    named = {letter: words[n] for n, letter in enumerate(sorted({letter for pair in texts for letter in pair}))}
    spelt = read_rows([{"text": named[text], "pair": named[pair]} for text, pair in texts])
    encoded = task.add_targets(task.encode(spelt, tokenizer, 64), spelt)
    order = np.random.default_rng(0).permutation(len(encoded))
    shuffled = [encoded[index] for index in order]
    targets = {key: torch.from_numpy(value) for key, value in task.collate(shuffled).items()}
    generator = torch.Generator().manual_seed(0)
    vectors = {letter: torch.randn(8, generator=generator) for letter in named}
    scores = torch.stack([vectors[letter] for pair in texts for letter in pair])[torch.from_numpy(order)]
    unit = {letter: vector / vector.norm() for letter, vector in vectors.items()}
    expected = 0.0
    first, ranks = 0, []
    for number, (text, pair) in enumerate(texts):
        cosines = {other: float(unit[text] @ unit[texts[other][1]]) for other in compared[number]}
        own = cosines[number]
        expected += float(np.log(sum(np.exp(20 * value) for value in cosines.values()))) - 20 * own
        ranks.append(1 + sum(value > own for value in cosines.values()))
        first += own == max(cosines.values())
        assert pair == texts[number][1]
    sums = task.sums(scores, targets)
    assert float(sums["loss"]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert int(sums["accuracy"]) == first
    predictions = [Similarity(0.0, torch.stack([vectors[text], vectors[pair]]).numpy()) for text, pair in texts]
    figures = task.metrics(predictions, rows)
    assert figures["accuracy"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert figures["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))


def test_few_answers_to_many_questions_can_be_learnt(pretrained: Path, tmp_path: Path) -> None:
    """Each answer stands in a step several times. If copies were negatives the loss could not fall below log 4."""
    answers = ["a cat sleeps", "the red house", "a bird eats", "the old dog runs"]
    rows = [{"text": f"the {animal} {'a ' * n}", "pair": answers[number]} for n in range(8) for number, animal in
            enumerate(("dog", "cat", "bird", "house"))]  # fmt: skip
    options = FinetuneOptions(steps=60, batch_size=16, lr=2e-3, dropout=0.0, precision="float32")
    result = finetune("similar", pretrained, rows, rows, tmp_path / "run", options)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["loss"] for line in lines if "loss" in line][-1] < 0.5 < np.log(4)
    assert result.metrics == {"accuracy": 1.0, "mrr": 1.0}


def test_one_or_many_texts(minilm: Path) -> None:
    model = bw.load(minilm)
    assert model.embed(["a", "b"]).shape == (2, 384)
    assert model.embed("a").shape == (384,)
    assert model.embed([]).shape == (0, 384)
    assert [one.text for one in model.similar("q", "the cat")] == ["the cat"]
    assert len(model.similar("q", (text for text in ("a", "b")))) == 2
    with pytest.raises(UserError, match="expected texts, found 5"):
        model.embed(5)  # type: ignore[arg-type]


def test_a_score_anywhere_makes_scored_pairs(pretrained: Path, tmp_path: Path) -> None:
    rows = [{"text": "a", "pair": "b"}, *PAIRS]
    with pytest.raises(UserError, match="row 1: no column 'score'"):
        finetune("similar", pretrained, rows, None, tmp_path / "r")
    plain = [{"text": row["text"], "pair": row["pair"]} for row in PAIRS]
    with pytest.raises(UserError, match="row 2: column 'score' is 'x', not a number"):
        finetune("similar", pretrained, plain, [PAIRS[0], {**PAIRS[1], "score": "x"}], tmp_path / "r")
    with pytest.raises(UserError, match="pooling is 'sum', expected"):
        finetune("similar", pretrained, PAIRS, None, tmp_path / "r", pooling="sum")


def test_the_hub_gives_what_sentence_transformers_needs() -> None:
    from huggingface_hub.utils import filter_repo_objects

    wanted = [
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "config.json",
    ]
    assert (
        list(filter_repo_objects([*wanted, "onnx/model.onnx"], allow_patterns=[*MODEL_FILES, *SENTENCE_FILES]))
        == wanted
    )


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, 200).astype(float)
    b = a + rng.normal(size=200).round(1)
    ours = correlations(a.tolist(), b.tolist())
    assert ours["spearman"] == pytest.approx(spearmanr(a, b).statistic)
    assert ours["pearson"] == pytest.approx(pearsonr(a, b).statistic)
    assert correlations([1, 1], [0, 2])["spearman"] == 0


def test_modules_that_are_not_read(minilm: Path, tmp_path: Path) -> None:
    shutil.copytree(minilm, tmp_path / "m")
    modules = json.loads((tmp_path / "m" / "modules.json").read_text())
    (tmp_path / "m" / "modules.json").write_text(json.dumps([*modules, {"type": "sentence_transformers.models.CNN"}]))
    with pytest.raises(UserError, match=r"the module 'sentence_transformers\.models\.CNN' is not read"):
        bw.load(tmp_path / "m")
    (tmp_path / "m" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text('{"pooling_mode_attention": true}')
    with pytest.raises(UserError, match="pools by pooling_mode_attention; read are mean, cls"):
        bw.load(tmp_path / "m")


def test_a_chooser_from_elsewhere_works_at_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = BertForMultipleChoice(hugging_face_config(tiny_config(), initializer_range=0.5)).eval()
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    choices = ["runs", "sleeps in the house", "eats the old red bird"]
    encoded = AutoTokenizer.from_pretrained(tmp_path)(["the dog"] * 3, choices, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**{name: values[None] for name, values in encoded.items()}).logits[0].softmax(-1).tolist()
    assert max(expected) > 0.4
    assert bw.load(tmp_path).choose("the dog", choices).probabilities == pytest.approx(expected, abs=1e-5)
