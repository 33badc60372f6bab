"""The first bad commit between a good and a bad one, by any verdict that answers with the gate's exit codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Verdict = Callable[[str], int]  # a commit, compared with the good one -> 0 good, 1 bad, 2 could not run, 3 inconclusive


@dataclass(frozen=True)
class Bisection:
    first_bad: str | None  # None where the bad end is not bad
    candidates: tuple[str, ...]  # more than one where commits beside it could not be judged
    judged: dict[str, int]


def bisect(commits: Sequence[str], verdict: Verdict) -> Bisection:
    """``commits``: after the good one, oldest first, the bad one last. Commits without a verdict are stepped around, as
    `git bisect skip` does; the answer then names all that may be the first."""
    judged: dict[str, int] = {}

    def ask(index: int) -> int:
        if commits[index] not in judged:
            judged[commits[index]] = verdict(commits[index])
        return judged[commits[index]]

    if ask(len(commits) - 1) != 1:
        return Bisection(None, (), judged)
    good, bad = -1, len(commits) - 1
    unknown: set[int] = set()
    while True:
        between = [index for index in range(good + 1, bad) if index not in unknown]
        if not between:
            break
        middle = min(between, key=lambda index: abs(index - (good + bad) // 2))
        answer = ask(middle)
        if answer == 0:
            good = middle
        elif answer == 1:
            bad = middle
        else:
            unknown.add(middle)
    return Bisection(commits[bad], tuple(commits[good + 1 : bad + 1]), judged)
