"""`bothways demo`: the whole way on text that is already on this machine, with an ordinary laptop in mind.

The English documentation inside the installed Python packages becomes a corpus, a vocabulary, a token store, a small
pretrained BERT that fills masks, a classifier of help-desk tickets, and one HTML page about all of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.inference.predictor import load
from bothways.model.heads import Bert
from bothways.recipes import parse
from bothways.tasks.pretraining import BertObjective
from bothways.text.wordpiece import WordPieceTokenizer
from bothways.train.finetune import FinetuneOptions, finetune
from bothways.train.loop import train_step
from bothways.train.optimizer import build_optimizer
from bothways.train.options import choose_device, choose_precision
from bothways.train.pretrain import PretrainOptions, pretrain
from bothways.train.report import Report, add_classification, add_pretraining
from bothways.train.run import RunDirectory
from bothways.verbs.text import ByteProgress, SourceArguments, train_tokenizer
from bothways.files import write_text
