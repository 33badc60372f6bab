"""How cells on a Ray cluster and their driver hear of each other. Imports nothing: the actor is a small process."""

from __future__ import annotations

from typing import Any


class Mailbox:
    """The actor beside the driver: cells leave their news and learn whether they are to end."""

    def __init__(self) -> None:
        self._stop, self._news = False, list[tuple[str, list[dict[str, Any]]]]()

    def beat(self, attempt: str, news: list[dict[str, Any]]) -> bool:
        self._news.append((attempt, news))
        return self._stop

    def collect(self, stop: bool) -> list[tuple[str, list[dict[str, Any]]]]:
        self._stop = stop
        news, self._news = self._news, []
        return news


class MailLink:
    """A cell's end of the mailbox. A network that is cut costs it nothing but the answer."""

    seconds = 1.0

    def __init__(self, mailbox: Any, attempt: str):
        self._mailbox, self._attempt = mailbox, attempt

    def beat(self, news: list[dict[str, Any]]) -> bool:
        import ray

        try:
            return bool(ray.get(self._mailbox.beat.remote(self._attempt, news), timeout=2.0))
        except ray.exceptions.RayError:
            return False
