"""`bothways VERB --help`: the usage, an example, and the options in groups: needed, usual, columns, rare."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bothways.option_checks import union_members
from bothways.verbs.options import Option
from bothways.verbs.screen import filled, screen_width

MAX_WIDTH = 100  # columns; longer lines are hard to read
LABEL_WIDTH = 26  # columns of an option's name, behind which its text begins

# What stands for an option's value, where its type does not say enough.
METAVARS = {
    "anchors": "WORD",
    "api_keys": "FILE",
    "calibrate": "FILE",
    "clip": "NORM",
    "context": "TEXT",
    "cors": "ORIGIN",
    "device": "auto|cpu|cuda|cuda:N",
    "drain": "SECONDS",
    "dropout": "SHARE",
    "encoding": "NAME",
    "host": "ADDRESS",
    "eval": "FILE|SHARE",
    "input": "FILE",
    "label_names": "NAME",
    "keep_layers": "N,N,…",
    "language": "CODE",
    "lr": "RATE",
    "mask_rate": "SHARE",
    "mask_rate_end": "SHARE",
    "mask_share": "SHARE",
    "min_p": "SHARE",
    "model": "MODEL",
    "models": "MODEL",
    "name": "NAME=MODEL",
    "phases": "LENGTH:SHARE",
    "predictions": "FILE",
    "seconds": "SECONDS",
    "short": "SHARE",
    "hours": "HOURS",
    "minutes": "MINUTES",
    "timeout": "SECONDS",
    "size": "tiny|mini|small|medium|base|large|vanilla",
    "teacher": "MODEL",
    "teacher_losses": "NAME=WEIGHT",
    "tokenizer": "DIR",
    "top_p": "SHARE",
    "train": "FILE",
    "validation": "SHARE",
    "warmup": "SHARE",
    "decay": "SHARE",
    "class_weights": "LABEL=WEIGHT",
    "choice_columns": "COLUMN",
    "word": "WORD",
    "next": "WORD",
    "on": "ray|ray://HOST:PORT",
    "parts": "K/N",
    "replicas": "N|MIN-MAX",
    "prompt_name": "NAME",
    "prompt": "TEXT",
}
FILE_VERBS = ("explain", "predict", "embed", "classify", "tag", "answer")  # whose --out is a file, no directory

# What most people never need, and the help therefore has last.
RARE = frozenset((
    "all", "batch_size", "calibrate", "checkpoint_every", "class_weights", "clip", "compile", "cors", "decay",
    "device", "drain", "dropout", "evaluate_every", "format", "freeze_layers", "hidden_act", "keep_checkpoints",
    "keep_layers", "label_names", "log_every", "log_texts", "mask_rate", "mask_rate_end", "mask_repeats", "mask_share",
    "max_body", "max_characters", "max_position_embeddings", "max_requests", "max_texts", "micro_batch_tokens",
    "min_frequency", "min_p", "no_normalize", "on", "optimizer", "overlap", "overwrite", "parallel", "parts",
    "patience", "phases", "pooling", "positions", "precision", "profile", "relation_heads", "repetition_penalty",
    "replicas", "scheme", "seed", "short", "skip_bad", "teacher_layer", "teacher_losses", "teacher_temperature",
    "teacher_weight", "tensorboard", "truncate", "validation_tokens", "warmup", "weight_decay", "whole_word_masking",
    "workers",
))  # fmt: skip
GROUPS = ("needed", "usual", "columns of the tables", "rare")


@dataclass(frozen=True)
class Page:
    """The help of a verb.

    verb: with its subject (`finetune classify`). description: what it does, then `Example: ` and a command. table: of
    a recipe. texts: what each option means, by its name.
    """

    verb: str
    description: str
    table: str
    options: Sequence[Option]
    texts: Mapping[str, str]

    def lines(self, width: int) -> list[str]:
        """The help, no line longer than `width` but for a word that is."""
        what, _, example = self.description.partition(" Example: ")
        command = filled(_words(example), width - 2, indent="    ", carry=" \\")
        lines = [*filled(self._usage(), width, indent="    "), "", *textwrap.wrap(what, width)]
        lines += ["", "Example:", *(f"  {line}" for line in command)]
        for group in GROUPS:
            members = [option for option in self.options if _group(option) == group]
            rows = [(_label(option, self.verb), self._text(option)) for option in members]
            if group == "usual":
                recipe = f"take options from the file's table [{self.table}]; what is given here wins"
                rows += [("--recipe FILE.toml", recipe), ("-h, --help", "this page")]
            if rows:
                lines += ["", group, *(line for row in rows for line in _entry(*row, width))]
        return lines

    def _usage(self) -> list[str]:
        words = [f"usage: bothways {self.verb}"]
        for option in sorted(self.options, key=lambda option: not option.is_positional):
            label = option.flag if option.is_model else _label(option, self.verb)
            if option.is_required or option.is_positional:
                words.append(label if option.is_required else f"[{label}]")
        return [*words, "[options]"]

    def _text(self, option: Option) -> str:
        """What the option means, other options in it spelt as flags, and its default."""
        text, value = self.texts.get(option.name, ""), option.default
        if option.is_model:
            text += "; by default the shipped one for this verb"
        for other in self.options:
            if "_" in other.name:
                text = re.sub(rf"(?<![\w-]){other.name}(?!\w)", other.flag, text)
        if option.is_required or option.is_switch or value is None or value in ("", ()):
            return text
        default = f"default {value:g}" if isinstance(value, float) else f"default {value}"
        return f"{text} ({default})" if text else default


def print_help(page: Page) -> None:
    """Print a page as wide as the terminal, its headings bold there."""
    text = "\n".join(page.lines(help_width()))
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR"):
        text = re.sub(rf"(?m)^({'|'.join(GROUPS)}|Example:)$", "\x1b[1m\\1\x1b[0m", text)
    print(text)


def help_width() -> int:
    """Columns of the help: the terminal's, within what is read easily."""
    return max(40, min(MAX_WIDTH, screen_width()))


def _group(option: Option) -> str:
    if option.is_required:
        return "needed"
    if option.name.endswith(("_column", "_columns")):
        return "columns of the tables"
    return "rare" if option.name in RARE else "usual"


def _label(option: Option, verb: str) -> str:
    """`--steps N`, `STORE`, `--json`; of a switch that is on, what turns it off."""
    shown = _metavar(option, verb)
    if option.is_model:
        return f"{shown}, --model {shown}"
    if option.is_positional:
        return shown + ("…" if option.is_list else "")
    if option.is_switch:
        return option.flag.replace("--", "--no-", 1) if option.default is True else option.flag
    return f"{option.flag} {shown}" + (" …" if option.is_list else "")


def _metavar(option: Option, verb: str) -> str:
    if option.name == "out":
        return "FILE" if verb in FILE_VERBS else "DIR"
    if option.choices and not (option.is_positional and len(option.choices) > 1):
        return "|".join(option.choices)
    if option.name.endswith("_column"):
        return "COLUMN"
    members = union_members(option.hint)
    usual = option.flag if option.is_positional else "N" if int in members else "NUMBER" if float in members else "TEXT"
    return METAVARS.get(option.name, usual)


def _entry(label: str, text: str, width: int) -> list[str]:
    """An option and what it means, side by side; below one another where the name is long."""
    indent = " " * (LABEL_WIDTH + 2)
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    if len(label) <= LABEL_WIDTH - 2 and lines:
        return [f"  {label}".ljust(LABEL_WIDTH + 2) + lines[0].strip(), *lines[1:]]
    choices = re.split(r"(?<=\|)", f"  {label}")  # too many for a line where it is long
    return [*filled(choices, width, gap="", indent=" " * 6), *lines]


def _words(command: str) -> list[str]:
    """A command's words, each with its quotes."""
    return re.findall(r"'[^']*'|\"[^\"]*\"|\S+", command)
