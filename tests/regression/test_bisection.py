"""The search for the first bad commit, against every place where it may be."""

from __future__ import annotations

import pytest

from adlbench.benchmark.regression.bisection import bisect

COMMITS = [f"c{index}" for index in range(11)]


@pytest.mark.parametrize("first", range(11))
def test_every_place_is_found_in_few_comparisons(first: int) -> None:
    result = bisect(COMMITS, lambda commit: int(COMMITS.index(commit) >= first))
    assert result.first_bad == f"c{first}"
    assert result.candidates == (f"c{first}",)
    assert len(result.judged) <= 5


@pytest.mark.parametrize("code", [2, 3])
def test_commits_without_a_verdict_widen_the_answer_and_never_hide_it(code: int) -> None:
    def verdict(commit: str) -> int:
        index = COMMITS.index(commit)
        return code if index in (5, 6) else int(index >= 6)

    result = bisect(COMMITS, verdict)
    assert "c6" in result.candidates
    assert result.candidates == ("c5", "c6", "c7")


@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_bad_end_that_is_not_bad_has_no_first(code: int) -> None:
    result = bisect(COMMITS, lambda commit: code)
    assert result.first_bad is None
    assert result.judged == {"c10": code}
