"""The engine's own hot paths, with pytest-benchmark: `make bench` prints them and saves build/benchmark.json.

Times of another day do not compare: `make bench BEFORE=main` interleaves another commit with this tree, and
`adlbench compare` two commits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hot_paths import HOT_PATHS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", HOT_PATHS)
def test_hot_path(benchmark: Any, name: str, tmp_path: Path) -> None:
    make, least = HOT_PATHS[name]
    assert benchmark.pedantic(make(tmp_path), rounds=10, warmup_rounds=1) >= least
