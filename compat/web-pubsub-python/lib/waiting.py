"""Things that happen, in their order, for whoever waits for them."""

import threading
import time
from collections.abc import Callable
from typing import Any

DEADLINE_SECONDS = 20.0
"""How long anything may take before a test fails. Generous: the machine may be busy."""


def eventually(question: Callable[[], Any], what: str) -> Any:
    """Asks again until `question` gives a true value, and returns that; fails after the deadline.

    For questions to the service: each is a round trip.
    """
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        answer = question()
        if answer:
            return answer
        if end < time.monotonic():
            raise AssertionError(f"{what}: not so within {DEADLINE_SECONDS:g} s")


class Mailbox:
    """What has happened and was not taken yet."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._items: list[Any] = []
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def next(self, matching: Callable[[Any], bool] = lambda item: True) -> Any:
        """Takes the oldest item that matches, or waits for one."""

        def position() -> int | None:
            return next((at for at, item in enumerate(self._items) if matching(item)), None)

        with self._changed:
            if not self._changed.wait_for(lambda: position() is not None, DEADLINE_SECONDS):
                raise AssertionError(f"{self._what}: not within {DEADLINE_SECONDS:g} s; there is {self._items!r}")
            return self._items.pop(position())

    def wait_for(self, count: int) -> None:
        """Waits until that many wait to be taken."""
        with self._changed:
            if not self._changed.wait_for(lambda: count <= len(self._items), DEADLINE_SECONDS):
                raise AssertionError(f"{self._what}: {len(self._items)} within {DEADLINE_SECONDS:g} s, {count} expected")

    def take_all(self) -> list[Any]:
        """Takes what is there now."""
        with self._changed:
            items, self._items = self._items, []
            return items

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)
