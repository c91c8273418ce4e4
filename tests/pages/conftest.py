"""Reports whose curves are their own."""

from __future__ import annotations

import pytest

from bothways.pages.curves import curve_svg


@pytest.fixture(autouse=True)
def _every_curve_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothways.pages.report.curve_svg", curve_svg)
