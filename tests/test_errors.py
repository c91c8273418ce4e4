"""A user's mistake is one line, whatever it quotes."""

from __future__ import annotations

import copy
import pickle

import pytest

import bothways as bw
from bothways.data.tables import read_rows


def test_what_is_quoted_does_not_break_the_line() -> None:
    rows = [{"a\nb": "x", "text\r\n": "y", "c\u2028d": "z"}]
    with pytest.raises(bw.UserError, match=r"columns present: a b, text ?, c d") as refusal:
        read_rows(rows, ["text"])
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    for again in (pickle.loads(pickle.dumps(refusal.value)), copy.copy(refusal.value)):
        assert type(again) is bw.UserError
        assert str(again) == message
