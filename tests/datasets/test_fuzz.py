"""A few rounds of ``tests/fuzz_formats.py`` over every registered format; the script itself goes on for as long as asked."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from fuzz_formats import SECONDS, formats, run_one

ROUNDS = 15


@pytest.mark.parametrize("form", formats(), ids=lambda form: form.name)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, form: Any) -> None:
    for name, content in form.files.items():
        path = tmp_path / "whole" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    form.read(tmp_path / "whole")

    def too_long(*args: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    try:
        for seed in range(ROUNDS):
            signal.alarm(SECONDS)
            assert run_one(form, seed, tmp_path / "damaged") is None, f"seed {seed}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
