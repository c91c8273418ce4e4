"""What came before the transformer: distributions that sum to one, `nltk`'s own Kneser–Ney, and the comparison."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from nltk.lm import KneserNeyInterpolated

from bothways.baselines.language import FeedForwardLM, NGram, PieceTokens, baseline_language_models
from bothways.data.prepare import PrepareOptions, prepare
from bothways.text.corpus import CorpusOptions
from tests.helpers import WORDS, Run, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PIECES = [TOKENIZER.token(id) for id in range(TOKENIZER.vocab_size)]


def documents(number: int, seed: int = 0) -> list[PieceTokens]:
    """Words where each hangs on the one before it, so that there is something to learn."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(number):
        at, document = int(rng.integers(len(WORDS))), []
        for _ in range(rng.integers(2, 12)):
            document.append(WORDS[at])
            at = (at * 3 + int(rng.integers(3))) % len(WORDS)
        made.append([*document, "[SEP]"])
    return made


TRAINED = {name: model.fit(documents(150)) for name, model in baseline_language_models(TOKENIZER, 3)}
PROBABILISTIC = [name for name in TRAINED if "stupid" not in name]


@pytest.mark.parametrize("name", PROBABILISTIC)
@pytest.mark.parametrize("text", [[], ["the"], ["old", "z", "the"], ["dog", "cat", "bird", "house"]])
def test_the_probabilities_of_all_pieces_sum_to_one(name: str, text: PieceTokens) -> None:
    model = TRAINED[name]
    before = model.log_probability([text]) if text else 0.0
    total = sum(math.exp(model.log_probability([[*text, piece]]) - before) for piece in PIECES)
    assert total == pytest.approx(1, abs=0.01)  # nltk keeps one piece's share of the base for <UNK>


def test_longer_contexts_predict_better_and_all_beat_the_uniform_guess() -> None:
    held_out = documents(40, seed=1)
    tokens = sum(map(len, held_out))
    perplexity = {name: math.exp(-TRAINED[name].log_probability(held_out) / tokens) for name in PROBABILISTIC}
    assert perplexity["1-gram"] < len(PIECES)
    assert all(value < perplexity["1-gram"] / 2 for name, value in perplexity.items() if name != "1-gram")
    assert perplexity["3-gram, Kneser-Ney"] < 8, "each word has three followers and a document may end"


def test_kneser_ney_is_nltks_where_every_piece_has_been_seen() -> None:
    """The tables give the counts that `nltk` searches for; only what has never been seen is treated otherwise."""
    train = documents(20)
    fitted = next(model for name, model in baseline_language_models(TOKENIZER, 3) if "Kneser" in name).fit(train)
    theirs = KneserNeyInterpolated(3, discount=0.75)
    begin = ["[CLS]"] * 2
    grams = [
        [(*([*begin, *text][at : at + 2][2 - n :]), text[at]) for at in range(len(text)) for n in range(3)]
        for text in train
    ]
    theirs.fit(grams, PIECES)
    compared = 0
    for text in train[:6]:
        padded = [*begin, *text]
        for at in range(2, len(padded)):
            context, word = tuple(padded[at - 2 : at]), padded[at]
            base = fitted.model.estimator.unigram_score(word) - theirs.estimator.unigram_score(word)
            found = fitted.model.unmasked_score(word, context) - theirs.unmasked_score(word, context)
            assert abs(found) <= abs(base) + 1e-12
            alpha, gamma = fitted.model.estimator.alpha_gamma(word, context)
            assert (alpha, gamma) == pytest.approx(theirs.estimator.alpha_gamma(word, context))
            compared += 1
    assert compared > 20


def test_suggestions_are_words_and_samples_end() -> None:
    for name, model in TRAINED.items():
        assert isinstance(model, NGram | FeedForwardLM)
        words = model.next_words(["the"], 3)
        assert len(words) == 3, name
        assert set(words) <= set(WORDS)
        assert "[SEP]" not in model.sample(["the"], 20)
        assert model.sample(["the"], 20) == model.sample(["the"], 20)


def test_the_comparison_measures_every_model_on_the_same_tokens(tmp_path: Path, bothways: Run) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(" ".join(document[:-1]) for document in documents(200)))
    options = PrepareOptions(CorpusOptions(documents="blank-line"), validation=0.1)
    store = prepare([str(text)], TOKENIZER, tmp_path / "store", options)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        '[pretrain]\nsize = "tiny"\nobjective = "causal"\nsteps = 20\ntokens_per_step = 256\nlr = 0.003\n'
    )
    arguments = ("--recipe", recipe, "--device", "cpu")
    for prompt in ("", "dog " * 600):
        code, _, errors = bothways("compare", "lm", store.directory, "--out", tmp_path / "no", "--prompt", prompt)
        assert (code, "--prompt" in errors) == (2, True)
    code, output, errors = bothways("compare", "lm", store.directory, "--out", tmp_path / "run", *arguments, "--json")
    assert code == 0, errors
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["name"] for line in lines] == [*TRAINED, "transformer"]
    by_name = {line["name"]: line for line in lines}
    assert by_name["3-gram, stupid backoff"]["perplexity"] is None
    assert by_name["transformer"]["perplexity"] < by_name["1-gram"]["perplexity"]
    assert all(line["suggestions"] for line in lines)
    code, output, errors = bothways("compare", "lm", store.directory, "--out", tmp_path / "run", *arguments)
    assert code == 0, errors
    assert "held-out tokens" in output
    assert "transformer:" in output


def test_a_store_without_held_out_documents_is_refused(tmp_path: Path, bothways: Run) -> None:
    (tmp_path / "one.txt").write_text("the dog runs")
    store = prepare([str(tmp_path / "one.txt")], TOKENIZER, tmp_path / "store")
    code, _, errors = bothways("compare", "lm", store.directory, "--out", tmp_path / "run")
    assert code == 2
    assert "no held-out documents" in errors
    assert "--validation" in errors
