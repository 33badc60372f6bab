"""The browser that the page is tested in: the system's Chromium, else the one that playwright has installed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest


def launch(playwright: Any) -> Any:
    """A running Chromium; skips the test where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
    if not Path(found).exists():
        pytest.skip("no Chromium on this machine: apt-get install chromium, or playwright install chromium")
    return playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


def wait_until(page: Any, expression: str, seconds: float = 60) -> None:
    """Until a JavaScript expression is true. Playwright's own wait evaluates text in the page, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not true: {expression}"
        page.wait_for_timeout(50)
