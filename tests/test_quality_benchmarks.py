"""The quality benchmarks on data as small as can be: their figures against oracles, and each way through once."""

from __future__ import annotations

import importlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from transformers import BertForMaskedLM

import bothways as bw
from bothways.errors import UserError
from bothways.predictor import Predictor
from tests.helpers import WORDS

SENTENCES = [" ".join(np.random.default_rng(seed).choice(WORDS, 100)) for seed in range(40)]


@pytest.fixture
def scripts(scripts_folder: Path) -> Iterator[Any]:
    """A benchmark's module by its name."""
    return importlib.import_module


@pytest.fixture
def model(pretrained: Path) -> Predictor:
    return bw.load(pretrained, precision="float32")


@pytest.fixture
def data(tmp_path: Path, scripts_folder: Path) -> Path:
    """A folder of data sets as the benchmarks want it, of a few rows."""
    folder = tmp_path / "data"
    for name in importlib.import_module("held_out").GENRES.values():
        write_zst(folder / name, [{"text": sentence} for sentence in SENTENCES])
    write_zst(folder / importlib.import_module("small_models").TEXT[-1], [{"text": text} for text in SENTENCES])
    pairs = [
        {"uid": "ties", "good": "the dog", "bad": "The  Dog"},
        {"uid": "words", "good": "the dog runs", "bad": "dog the runs"},
        {"uid": "words", "good": "a cat eats", "bad": "cat a eats"},
    ]
    write_zst(folder / "eval-zorro" / "zorro.jsonl.zst", pairs)
    write_zst(folder / "eval-blimp" / "blimp-half.jsonl.zst", pairs)
    known = [{"relation": "R", "subject": "the house", "object": word} for word in ("Red", "zebra", "漢")]
    write_zst(folder / "eval-lama-trex" / "facts-half.jsonl.zst", known)
    write(folder / "eval-lama-trex" / "patterns-half.jsonl", json.dumps({"relation": "R", "patterns": ["[X] is [Y]."]}))
    rows = [f"{word} {words[:30]}" for word, words in zip(["red", "blue"] * 10, SENTENCES, strict=False)]
    scored = [f"g\tf\ty\t{n}\t{n % 5}\t{row}\t{row}" for n, row in enumerate(rows)]
    labelled = [f"{row}\t{n % 2}" for n, row in enumerate(rows)]
    paired = [f"{n % 2}\t1\t2\t{row}\t{row}" for n, row in enumerate(rows)]
    for name in ("train", "test"):
        write(folder / "sst2" / f"{name}.tsv", "sentence\tlabel", *labelled)
        write(folder / "stsbenchmark" / f"sts-{name}.csv", *scored)
        write(folder / "mrpc" / f"{name}.txt", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *paired)
    return folder


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_zst(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_pseudo_log_likelihoods_are_those_of_transformers(scripts: Any, model: Predictor, pretrained: Path) -> None:
    theirs, texts, expected = (
        BertForMaskedLM.from_pretrained(pretrained).eval(),
        [SENTENCES[0][:60], "dog", "漢 cat"],
        [],
    )
    for text in texts:
        ids = model.tokenizer.encode(text, special_tokens=False).input_ids
        whole = torch.tensor([model.tokenizer.cls_id, *ids, model.tokenizer.sep_id])
        copies = whole.repeat(len(ids), 1)
        at = torch.arange(len(ids))
        copies[at, at + 1] = model.tokenizer.mask_id
        with torch.inference_mode():
            logs = theirs(copies).logits.log_softmax(-1)
        expected.append(float(logs[at, at + 1, whole[1:-1]].sum()))
    sums, unknown = scripts("zero_shot").pseudo_log_likelihoods(model, texts)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    assert unknown == 1


def test_equally_likely_sentences_are_wrong(scripts: Any, model: Predictor, data: Path) -> None:
    """A pair that the tokenizer reads as the same; the pairs of each paradigm are those drawn."""
    figures = scripts("zero_shot").minimal_pairs(model, data / "eval-zorro" / "zorro.jsonl.zst", 1)
    assert figures["paradigms"]["ties"] == 0
    assert figures["pairs"] == 2
    assert figures["accuracy"] == np.mean(list(figures["paradigms"].values()))


def test_held_out_figures_of_a_model_that_knows_all(
    scripts: Any, model: Predictor, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pieces of each word are masks; a word with an unknown piece is wrong, whatever the model says."""
    zero_shot, held_out = scripts("zero_shot"), scripts("held_out")
    asked: list[Any] = []

    def knows_all(_: Predictor, sequences: list[Any]) -> list[Any]:
        asked.extend(sequences)
        numbers = [len(sequence.targets["index"]) for sequence in sequences]
        return [zero_shot.Found(np.full(number, -0.5), np.zeros(number, dtype=np.int64)) for number in numbers]

    monkeypatch.setattr(zero_shot, "ask", knows_all)
    text = "the zoo of 漢 red dogs"
    words = [(text.index(word), text.index(word) + len(word)) for word in ("zoo", "漢", "red")]
    figures = zero_shot.genre_figures(model, [held_out.Passage(text, words)])
    shown = [model.tokenizer.token(id) for id in asked[0].input_ids]
    masks = ["[MASK]"] * 3
    assert shown == ["[CLS]", "the", *masks, "of", *masks[:2], "dog", "##s", "[SEP]"]
    assert figures["word_accuracy"] == pytest.approx(2 / 3)
    assert figures["short_share"] == pytest.approx(1 / 3)
    assert figures["short_accuracy"] == figures["accuracy"] == 1
    assert figures["loss"] == pytest.approx(0.5)
    assert figures["word_loss"] == pytest.approx((3 * 0.5 + 0.5) / 2)  # zoo has three pieces
    assert figures["unknown"] == pytest.approx(1 / 3)


def test_ranks_and_log_probabilities_are_those_of_fill(scripts: Any, model: Predictor) -> None:
    zero_shot, text = scripts("zero_shot"), "the red dog runs"
    pieces = model.tokenizer.encode(text, special_tokens=False)
    found = zero_shot.ask(model, [zero_shot.masked(model.tokenizer, pieces, np.array([2]))])[0]
    fills = model.fill("the red [MASK] runs", top_k=model.tokenizer.vocab_size)[0]
    place = next(place for place, fill in enumerate(fills) if fill.token == "dog")
    assert found.rank[0] == place
    assert np.exp(found.log_probability[0]) == pytest.approx(fills[place].probability, rel=1e-4)


def test_only_objects_of_a_single_piece_are_asked_for(scripts: Any, model: Predictor, data: Path) -> None:
    figures = scripts("zero_shot").facts(model, data / "eval-lama-trex")
    assert (figures["facts"], figures["of"]) == (1, 3)  # zebra has five pieces, 漢 is unknown
    assert 0 <= figures["first"] <= figures["among_ten"] <= 1


def test_cloze_sentences_have_a_mask_and_answers(scripts: Any, scripts_folder: Path, model: Predictor) -> None:
    lines = [line.split("\t") for line in (scripts_folder / "cloze.tsv").read_text().splitlines()]
    assert len(lines) == 30
    assert all(sentence.count("[MASK]") == 1 and answers == answers.lower() for sentence, answers in lines)
    assert len(scripts("zero_shot").cloze_lines(scripts("zero_shot").cloze(model))) == 30


def test_training_leaves_out_what_is_held_out(scripts: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out, name = scripts("held_out"), "text-english/fairytales.jsonl.zst"
    monkeypatch.setattr(held_out, "LAST_DOCUMENTS", 10)
    assert list(held_out.training_texts(data, [name], megabytes=1)) == SENTENCES[:30]
    read = {passage.text for passage in held_out.passages(data, "tales")}
    assert len(read) == 20  # of ten documents, the first 80 words of each and the other 20
    assert all(any(text in sentence for sentence in SENTENCES[30:]) for text in read)
    assert held_out.passages(data, "tales") == held_out.passages(data, "tales")


def test_zero_shot_adds_to_the_file_and_goes_on(
    scripts: Any, data: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quality, out = scripts("quality"), str(tmp_path / "quality.json")
    asked = ["zero-shot", f"mine={pretrained}", "--data", str(data), "--json", out, "--pairs-per-paradigm", "1"]
    assert quality.main([*asked, "--measures", "zorro"]) == 0
    assert quality.main(asked) == 0
    said = capsys.readouterr()
    assert "mine, zorro: there already" in said.err
    assert said.out.count("[MASK]") == 30
    quality.main(["table", out])
    table = capsys.readouterr().out
    assert "| mine | 0.0 | – | – |" in table
    assert "| ties | 0 |" in table


def test_fine_tuned_has_a_row_for_each_contender(
    scripts: Any, data: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quality, out = scripts("quality"), tmp_path / "quality.json"
    asked = ["fine-tuned", f"mine={pretrained}", "--data", str(data), "--json", str(out), "--train-rows", "8"]
    assert quality.main([*asked, "--sets", "sst2", "--beside", "twin", "words"]) == 0
    table = capsys.readouterr().out
    for name in ("bag of words", "mine", "mine, new weights", "BERT-Tiny (Google)"):
        assert f"| {name} |" in table
    assert table.count(" [8] |") == 3
    figures = [record["figures"] for record in json.loads(out.read_text())["records"] if record.get("set") == "sst2"]
    assert {of["train_rows"] for of in figures} == {8}
    assert {of["test_rows"] for of in figures} == {20}


def test_what_was_stopped_is_not_measured(
    scripts: Any, data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality, out = scripts("quality"), tmp_path / "quality.json"
    stopped = SimpleNamespace(training=SimpleNamespace(interrupted=signal.SIGTERM))
    monkeypatch.setattr(bw, "finetune", lambda *args, **options: stopped, raising=False)
    with pytest.raises(KeyboardInterrupt):
        quality.main(["fine-tuned", str(pretrained), "--data", str(data), "--json", str(out), "--sets", "sst2"])
    assert not [record for record in json.loads(out.read_text())["records"] if record["model"] == "base"][1:]


def test_minutes_are_turned_into_rows(scripts: Any, data: Path, pretrained: Path, tmp_path: Path) -> None:
    fine_tuned = scripts("fine_tuned")
    settings = fine_tuned.FineTuning(data, minutes=1e-9)
    train, _ = fine_tuned.SETS["sst2"].rows(data)
    rows = fine_tuned.rows_in(settings, fine_tuned.SETS["sst2"], pretrained, train, tmp_path)
    assert rows == fine_tuned.FEWEST_ROWS
    assert settings.cap == "of 1e-09 min"


def test_a_bag_of_words_learns_what_words_tell(scripts: Any) -> None:
    """Of texts the label is the first word; of pairs the score is whether the words are the same."""
    fine_tuned = scripts("fine_tuned")
    rows = [{"sentence": f"{word} {n}", "label": word} for n in range(10) for word in ("red", "blue")]
    assert fine_tuned.bag_of_words(fine_tuned.SETS["sst2"], rows, rows)["accuracy"] == 1
    pairs = [{"text": a, "pair": b, "score": 5.0 * (a == b)} for a in WORDS[3:6] for b in WORDS[3:6]]
    assert fine_tuned.bag_of_words(fine_tuned.SETS["stsb"], pairs, pairs)["spearman"] > 0.7


def test_a_cell_tells_mean_spread_and_rows(scripts: Any) -> None:
    figures = [
        {"metric": "f1", "f1": f1, "exact_match": 0.5, "also": ["exact_match"], "train_rows": 8} for f1 in (0.6, 0.8)
    ]
    cell = scripts("quality_results")._cell([{"figures": of} for of in figures])
    assert cell == "70.0 / 50.0 ± 14.1 (n = 2) [8]"


def test_files_of_several_machines_make_a_table(scripts: Any, tmp_path: Path) -> None:
    results = scripts("quality_results").Results
    for number, name in enumerate(("a", "b")):
        made = results(tmp_path / f"{name}.json")
        made.add({"accuracy": number}, kind="zero-shot", model="m", set="zorro", pairs=5)
        made.add({"accuracy": number}, kind="zero-shot", model=name, set="zorro", pairs=5)
    together = scripts("quality").merged([tmp_path / "a.json", tmp_path / "b.json"])
    assert [(record["model"], record["figures"]["accuracy"]) for record in together.records] == [
        ("a", 0), ("m", 1), ("b", 1),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no key of a record: sets"):
        together.add({}, kind="zero-shot", sets="zorro")


def test_rows_of_small_models_add_up(
    scripts: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps follow from the operations; a row of replaced tokens has no words; other settings want another folder."""
    monkeypatch.setattr(scripts("held_out"), "LAST_DOCUMENTS", 10)
    small_models = scripts("small_models")
    monkeypatch.setattr(small_models, "VALIDATION", 0.1)
    monkeypatch.setattr(small_models, "FINE_TUNED", ("sst2",))
    asked = ["--rows-dir", str(tmp_path / "rows"), "--data", str(data), "--size", "tiny", "--tokens-per-step", "256"]
    asked += ["--vocabulary", "120", "--train-rows", "8", "--pairs", "1"]
    assert small_models.main([*asked, "--flops", "3e9", "--rows", "falling"]) == 0
    assert small_models.main([*asked, "--flops", "3e9", "--rows", "falling", "electra"]) == 0
    said = capsys.readouterr()
    assert "falling: there already" in said.err
    lines = [line for line in said.out.splitlines() if line.startswith(("| falling", "| electra"))]
    assert [line.count("–") for line in lines[-2:]] == [2, 8]  # MRPC and STS-B are left out
    row = json.loads((tmp_path / "rows" / "rows" / "falling.json").read_text())["figures"]
    assert row["steps"] * row["flops_per_token"] * 256 == pytest.approx(3e9, rel=0.5 / row["steps"] + 1e-3)
    with pytest.raises(UserError, match="has rows of flops"):
        small_models.main([*asked, "--flops", "2e10", "--rows"])
