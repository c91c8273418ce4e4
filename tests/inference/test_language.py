"""Language models asked: a poem learnt by heart, generation with and without the cache, scores, suggestions."""

from __future__ import annotations

import gc
import math
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertForMaskedLM, BertLMHeadModel

import bothways as bw
from bothways.batch import pack_sequences
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.counter_random import mix, uniforms
from bothways.data.prepare import prepare
from bothways.errors import TruncationWarning, UserError
from bothways.inference import kv_cache, loaded, prepared
from bothways.inference.generation import Decoding, generate
from bothways.inference.generation_options import GenerationOptions
from bothways.inference.kv_cache import TextCache
from bothways.inference.packed_linear import PackedLinear
from bothways.inference.sampling import draw_tokens, filtered_logits
from bothways.model.families import head_builder
from bothways.native.loading import library
from bothways.precision import InferencePrecision
from bothways.predictor import Predictor
from bothways.text.tokenizer import Tokenizer
from bothways.text.word_pieces import word_pieces
from tests.helpers import WORDS, tiny_config, tiny_tokenizer

# Li Bai, "Quiet night thought", in our own words.
POEM = (
    "Before my bed lies a pool of moonlight, so bright I took it for frost on the ground. "
    "I raise my head and look at the moon, I lower my head and think of home."
)


@pytest.fixture(scope="module")
def poem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learnt the poem by heart."""
    folder = tmp_path_factory.mktemp("poem")
    (folder / "poem.txt").write_text(POEM)
    tokenizer = Tokenizer.train(lambda: [POEM], 200, min_frequency=1)
    prepare([str(folder / "poem.txt")], tokenizer, folder / "store")
    options = bw.PretrainOptions(
        objective="causal", size="tiny", steps=80, tokens_per_step=256, sequence_length=64, lr=2e-3
    )
    bw.pretrain(folder / "store", folder / "run", options)
    return folder / "run"


@pytest.fixture(scope="module")
def untrained() -> Predictor:
    """A causal model that knows nothing, so that it says all sorts of things."""
    model = new_model(tiny_config(is_decoder=True, initializer_range=0.3), head_builder("causal-LM"), seed=4)
    with torch.no_grad():
        model.head.lm.decoder.bias[tiny_tokenizer().sep_id] += 3.0  # so that some texts end
    return Predictor(Checkpoint(model.eval(), tiny_tokenizer()))


def prompts(number: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(number)]


def test_a_poem_is_learnt_by_heart_and_told_from_its_first_two_words(poem: Path) -> None:
    model = bw.load(poem)
    assert "Before my" + model.generate("Before my", greedy=True) == "Before my" + POEM.lower()[len("Before my") :]
    assert "".join(model.stream("Before my", greedy=True)) == model.generate("Before my", greedy=True)


def test_greedy_generation_is_that_of_transformers_on_100_prompts(untrained: Predictor, tmp_path: Path) -> None:
    save_checkpoint(untrained.checkpoint, tmp_path / "m")
    theirs = BertLMHeadModel.from_pretrained(tmp_path / "m").eval()
    tokenizer = untrained.tokenizer
    listed = prompts(100)
    ours = untrained.generate(listed, greedy=True, max_tokens=12)
    ended = 0
    for prompt, text in zip(listed, ours, strict=True):
        ids = [tokenizer.cls_id, *tokenizer.encode(prompt).input_ids.tolist()]
        made = theirs.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
        ended += tokenizer.sep_id in made
        said = [id for id in made if id not in (tokenizer.sep_id, tokenizer.pad_id)]
        assert tokenizer.decode(tokenizer.encode(prompt).input_ids.tolist() + said) == prompt + text
    assert 0 < ended < 100, "some texts end by themselves and some at the limit"


def without_cache(model: Predictor, prompt: np.ndarray, options: GenerationOptions, sample: int) -> list[int]:
    """The whole text through the model for every token: what the cache must not change."""
    tokenizer, ids = model.tokenizer, prompt.tolist()
    for step in range(options.max_tokens):
        read = np.array(ids)
        with torch.inference_mode():
            logits = model.model(pack_sequences([(read, np.zeros_like(read))])).logits[-1:]
        logits = filtered_logits(logits, options, [torch.tensor(ids)])
        uniform = uniforms(mix(options.seed, np.array([sample])), np.array(step), 0)
        chosen = logits.argmax() if options.greedy else draw_tokens(logits, torch.from_numpy(uniform))
        ids.append(int(chosen))
        if ids[-1] == tokenizer.sep_id:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "options",
    [
        GenerationOptions(greedy=True, max_tokens=20),
        GenerationOptions(max_tokens=20, seed=3),
        GenerationOptions(max_tokens=20, samples=3, temperature=0.8, top_k=10, top_p=0.9, repetition_penalty=1.2),
    ],
)
def test_the_cache_and_the_company_of_other_prompts_change_nothing(
    untrained: Predictor, options: GenerationOptions
) -> None:
    tokenizer = untrained.tokenizer
    ids = [np.append(tokenizer.cls_id, tokenizer.encode(one).input_ids) for one in prompts(8, seed=2)]

    def grown(chosen: list[np.ndarray]) -> list[list[int]]:
        texts: dict[tuple[int, int], list[int]] = {}
        for step in generate(untrained.model, chosen, options, end_id=tokenizer.sep_id):
            for text, token in zip(step.texts, step.tokens, strict=True):
                texts.setdefault(text, []).append(token)
        return [texts[key] for key in sorted(texts)]

    together = grown(ids)
    assert together == [text for one in ids for text in grown([one])]
    assert together == [without_cache(untrained, one, options, n) for one in ids for n in range(options.samples)]
    assert len({len(text) for text in together}) > 1, "texts end at different times"


def test_samples_differ_and_a_seed_repeats_them(untrained: Predictor) -> None:
    first, again, other = (untrained.generate("the dog", samples=4, max_tokens=8, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 4
    assert untrained.generate("the dog", max_tokens=8, seed=1) == first[0]


def test_a_prompt_that_leaves_no_room_is_an_error_or_loses_its_beginning(untrained: Predictor) -> None:
    long = "dog " * 600
    with pytest.raises(UserError, match=r"600 tokens long; the position table has 512 rows.*truncate='left'"):
        untrained.generate(long)
    with pytest.warns(TruncationWarning, match="lost their beginning"):
        cut = untrained.generate(long, truncate="left", max_tokens=5, greedy=True)
    assert cut == untrained.generate("dog " * (512 - 1 - 5), max_tokens=5, greedy=True)
    with pytest.raises(UserError, match="prompt 1 is empty"):
        untrained.generate(" ")


def test_a_text_that_fills_the_position_table_ends_there_and_says_so() -> None:
    model = new_model(tiny_config(is_decoder=True), head_builder("causal-LM"), seed=4)
    with torch.no_grad():
        model.head.lm.decoder.bias[tiny_tokenizer().sep_id] -= 100  # it never ends by itself
    endless = Predictor(Checkpoint(model.eval(), tiny_tokenizer()))
    prompt = "dog " * 505
    with pytest.warns(TruncationWarning, match="1 texts end where the position table does, at 512 tokens"):
        text = endless.generate(prompt, max_tokens=50)
    assert len(endless.tokenizer.encode(prompt + text).input_ids) <= 511
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        endless.generate(prompt, max_tokens=6)
    for words in range(505, 512):  # the keyboard's words need room as well
        assert len(endless.suggest("dog " * words)) == 3


@pytest.mark.parametrize("words", [509, 510])
def test_scores_up_to_the_last_row_of_the_position_table(words: int, untrained: Predictor, pretrained: Path) -> None:
    text = "dog " * words
    for model in (untrained, bw.load(pretrained)):
        if words == 509:
            assert len(model.score(text).tokens) == words
        else:
            with pytest.raises(UserError, match="513 tokens long; the position table has 512 rows"):
                model.score(text)


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.999999), ("bfloat16", 0.999), ("int8", 0.99)])
def test_generation_in_every_format_is_near_the_model(precision: InferencePrecision, least: float) -> None:
    if library() is None:
        pytest.skip("nothing was built for this CPU")
    model = new_model(tiny_config(is_decoder=True, initializer_range=0.1), head_builder("causal-LM"), seed=4).eval()
    narrow = prepared.prepare_for_generation(model, precision)
    assert sum(isinstance(module, PackedLinear) for module in narrow.modules()) == 2 * 4 + 2
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    prompts = [np.arange(length) + 5 for length in (1, 9, 4)]
    decodings = [Decoding(of, prompts, 3) for of in (model, narrow)]
    wanted = [decoding.read_prompts() for decoding in decodings]
    for token in (7, 8):
        ours, theirs = (torch.stack(growth.run()) for growth in wanted)
        assert F.cosine_similarity(ours, theirs).min() > least
        wanted = [decoding.append([token] * 3) for decoding in decodings]


def test_texts_side_by_side_go_on_as_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention of other devices than a CPU, on a CPU; texts leave, and one goes on twice."""
    model = new_model(tiny_config(is_decoder=True, initializer_range=0.3), head_builder("causal-LM"), seed=4).eval()
    prompts = [np.arange(length) + 5 for length in (3, 9, 4)]

    def grown() -> list[torch.Tensor]:
        decoding = Decoding(model, prompts, 6)
        found = decoding.read_prompts().run()
        for index, tokens in (([0, 1, 2], [7, 8, 9]), ([2, 1], [5, 6]), ([1, 0, 1], [9, 9, 8]), ([0, 1, 2], [5, 6, 7])):
            decoding.select(index)
            found += decoding.append(tokens).run()
        return found

    expected = grown()
    monkeypatch.setattr(kv_cache, "_attend_by_text", kv_cache._attend_side_by_side)
    for ours, right in zip(grown(), expected, strict=True):
        torch.testing.assert_close(ours, right, atol=1e-5, rtol=1e-5)


def test_caches_side_by_side_are_as_wide_as_the_longest_that_is_there() -> None:
    """Memory of a longer text is given back when it has left; what the others have written stays."""
    encoder = new_model(tiny_config(is_decoder=True), head_builder("causal-LM"), seed=4).encoder
    short, long = TextCache(encoder, 8), TextCache(encoder, 200)
    for cache in (short, long):
        cache.allocate()
        cache.length = 3
        for layer in cache.layers:
            layer.normal_()
    written = [layer[:, :, :3].clone() for layer in short.layers]
    together = kv_cache._block_of([short, long])
    assert together[0].shape[1::2] == (2, 200)
    assert kv_cache._block_of([short, long]) is together
    left = [weakref.ref(layer.untyped_storage()) for layer in together]
    alone = kv_cache._block_of([short])
    assert alone[0].shape[1::2] == (1, 8)
    assert short.copy().layers[0].shape[2] == 8
    for layer, right in zip(short.layers, written, strict=True):
        torch.testing.assert_close(layer[:, :, :3], right, atol=0, rtol=0)
    del together, long, cache, layer
    gc.collect()
    assert not any(storage() for storage in left)


def test_a_model_that_reads_both_ways_does_not_generate(pretrained: Path) -> None:
    with pytest.raises(UserError, match=r"base: generate needs a model trained from left to right.*`score`"):
        bw.load(pretrained).generate("the dog")


def test_the_score_of_a_text_is_the_sum_of_its_tokens_by_transformers(untrained: Predictor, tmp_path: Path) -> None:
    save_checkpoint(untrained.checkpoint, tmp_path / "m")
    theirs = BertLMHeadModel.from_pretrained(tmp_path / "m").eval()
    tokenizer = untrained.tokenizer
    ids = [tokenizer.cls_id, *tokenizer.encode("the old dog sleeps.").input_ids.tolist()]
    logs = theirs(torch.tensor([ids])).logits[0].detach().double().log_softmax(-1)
    expected = [float(logs[n, ids[n + 1]]) for n in range(len(ids) - 1)]
    found = untrained.score("the old dog sleeps.", next="zebra")
    assert found.log_probability == pytest.approx(sum(expected), abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-4)
    assert [one.token for one in found.tokens] == ["the", "old", "dog", "sleeps", "."]
    assert [one.token for one in found.next] == ["z", "##e", "##b", "##r", "##a"]
    assert found.next_probability == pytest.approx(math.prod(one.probability for one in found.next))
    assert found.next[0].probability == pytest.approx(float(logs[-1, tokenizer.id("z")].exp()), rel=1e-3)
    assert found.alternatives[0].probability == pytest.approx(float(logs[-1].exp().max()), rel=1e-3)


def test_a_masked_models_score_hides_each_piece_with_the_rest_of_its_word(tmp_path: Path) -> None:
    model = new_model(tiny_config(initializer_range=0.3), head_builder("pretraining"), seed=1).eval()
    save_checkpoint(Checkpoint(model, tiny_tokenizer()), tmp_path / "m")
    theirs, tokenizer = BertForMaskedLM.from_pretrained(tmp_path / "m").eval(), tiny_tokenizer()
    text = "the zoo runs"  # the | z ##o ##o | runs
    ids = tokenizer.encode(text).input_ids.tolist()
    hidden = {0: [0], 1: [1, 2, 3], 2: [2, 3], 3: [3], 4: [4]}
    expected = []
    for piece, masked in hidden.items():
        shown = [tokenizer.mask_id if n in masked else id for n, id in enumerate(ids)]
        read = torch.tensor([[tokenizer.cls_id, *shown, tokenizer.sep_id]])
        logs = theirs(read, attention_mask=torch.ones_like(read)).logits[0, 1 + piece].double().log_softmax(-1)
        expected.append(float(logs[ids[piece]]))
    found = Predictor(Checkpoint(model, tokenizer)).score(text, next="dog")
    assert [math.log(one.probability) for one in found.tokens] == pytest.approx(expected, abs=1e-4)
    assert found.log_probability == pytest.approx(sum(expected), abs=1e-3)
    read = torch.tensor([[tokenizer.cls_id, *ids, tokenizer.mask_id, tokenizer.sep_id]])
    after = theirs(read, attention_mask=torch.ones_like(read)).logits[0, -2].softmax(-1)
    assert found.next_probability == pytest.approx(float(after[tokenizer.id("dog")]), rel=1e-3)


def test_suggestions_are_the_likeliest_whole_words(poem: Path) -> None:
    model = bw.load(poem)
    first = model.suggest("I lower my")[0]
    assert first.word == "head"
    assert 0.5 < first.probability < 1
    probabilities = [one.probability for one in model.suggest("I lower my", top_k=5)]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(probabilities) == 5


def test_the_vocabulary_is_looked_through_once_for_a_model(
    untrained: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, looked = untrained.suggest("the dog"), list[int]()

    def noting(tokenizer: Tokenizer, rows: int) -> np.ndarray:
        looked.append(rows)
        return word_pieces(tokenizer, rows)

    monkeypatch.setattr(loaded, "word_pieces", noting)
    model = Predictor(untrained.checkpoint, "cpu", "float32")
    assert model.suggest("the dog") == model.suggest("the dog") == expected
    assert looked == [model.config.vocab_size]


def test_a_suggestions_probability_is_that_of_its_pieces_and_of_its_end(untrained: Predictor) -> None:
    tokenizer = untrained.tokenizer
    continues = torch.from_numpy(tokenizer.continuations())
    for suggestion in untrained.suggest("the dog", top_k=6):
        ids = [tokenizer.cls_id, *tokenizer.encode(f"the dog {suggestion.word}").input_ids.tolist()]
        read = np.array(ids)
        with torch.inference_mode():
            distribution = untrained.model(pack_sequences([(read, np.zeros_like(read))])).logits.softmax(-1)
        pieces = math.prod(float(distribution[n - 1, ids[n]]) for n in range(3, len(ids)))
        ends = 1 - float(distribution[-1][continues].sum())
        assert suggestion.probability == pytest.approx(pieces * ends, rel=1e-3)
