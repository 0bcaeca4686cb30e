"""Both kinds of both SDKs behind the same calls, so that each test is written once and holds for both.

Nothing of the SDKs is replaced or reached into: the asyncio kind runs in an event loop of its own, in a thread, and its coroutines
are waited for. Which public methods were called, with and without success, is noted in `called` and `failed`.
"""

import asyncio
import inspect
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import azure.messaging.webpubsubclient as client_sync
import azure.messaging.webpubsubclient.aio as client_aio
import azure.messaging.webpubsubservice as service_sync
import azure.messaging.webpubsubservice.aio as service_aio

from .waiting import DEADLINE_SECONDS

CALL_SECONDS_MAX = 3 * DEADLINE_SECONDS
"""How long a call of the asyncio kind may take: more than any time-out inside the SDK."""

called: set[tuple[str, str, str]] = set()
"""(kind, class, method) of every call that came back."""

failed: set[tuple[str, str, str]] = set()
"""(kind, class, method) of every call that raised."""


class Kind:
    """What differs between the blocking kind and the asyncio kind."""

    name: str
    service_class: type
    client_class: type
    credential_class: type

    def call(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Calls `function` where the SDK may be called; waits for the result if it is awaitable."""
        raise NotImplementedError

    def listener(self, function: Callable) -> Callable:
        """Returns a callback of this kind that calls `function`."""
        raise NotImplementedError

    def provider(self, function: Callable[[], str]) -> Callable:
        """Returns what a credential of this kind asks for a URL: `function`."""
        raise NotImplementedError

    def settle(self) -> None:
        """Waits until callbacks that were begun have run. Those that `listener` made, that is."""
        raise NotImplementedError

    def items(self, paged: Any) -> list:
        """Returns what a paged answer holds, over all pages."""
        raise NotImplementedError

    def pages(self, paged: Any, **options: Any) -> list[list]:
        """Returns the pages of a paged answer."""
        raise NotImplementedError

    @contextmanager
    def inside(self, target: Any) -> Iterator[Any]:
        """Enters and leaves `target` as a context manager."""
        raise NotImplementedError

    def end(self) -> None:
        """Frees what this kind holds."""


class Sync(Kind):
    name = "sync"
    service_class = service_sync.WebPubSubServiceClient
    client_class = client_sync.WebPubSubClient
    credential_class = client_sync.WebPubSubClientCredential

    _numbers = itertools.count()

    def __init__(self) -> None:
        self._listener_name = f"listener_{next(self._numbers)}_"

    def call(self, function, *arguments, **options):
        return function(*arguments, **options)

    def listener(self, function):
        def listener(*arguments):
            function(*arguments)

        listener.__name__ = self._listener_name
        return listener

    def provider(self, function):
        return function

    def settle(self):
        # The SDK starts a thread for each callback, one after the other, but they run as they please. What was begun before
        # shows among the threads, by the name of its function. One that is only just being started comes after those.
        for thread in threading.enumerate():
            if f"({self._listener_name})" in thread.name and thread.is_alive():
                thread.join(DEADLINE_SECONDS)

    def items(self, paged):
        return list(paged)

    def pages(self, paged, **options):
        return [list(page) for page in paged.by_page(**options)]

    @contextmanager
    def inside(self, target):
        with target as entered:
            yield entered


class Aio(Kind):
    name = "aio"
    service_class = service_aio.WebPubSubServiceClient
    client_class = client_aio.WebPubSubClient
    credential_class = client_aio.WebPubSubClientCredential

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _run(self, coroutine: Coroutine) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_SECONDS_MAX)

    def call(self, function, *arguments, **options):
        async def run():
            result = function(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

        return self._run(run())

    def listener(self, function):
        async def listener(*arguments):
            function(*arguments)

        return listener

    def provider(self, function):
        # Not in the loop, which `function` may need.
        async def provider():
            return await asyncio.to_thread(function)

        return provider

    def settle(self):
        # Tasks run in the order in which they were made.
        async def turn():
            pass

        self._run(turn())

    def items(self, paged):
        async def run():
            return [item async for item in paged]

        return self._run(run())

    def pages(self, paged, **options):
        async def run():
            return [[item async for item in page] async for page in paged.by_page(**options)]

        return self._run(run())

    @contextmanager
    def inside(self, target):
        async def leave():
            await target.__aexit__(None, None, None)

        async def enter():
            return await target.__aenter__()

        entered = self._run(enter())
        try:
            yield entered
        finally:
            self._run(leave())

    def end(self):
        async def cancel_what_is_left():
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._run(cancel_what_is_left())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_SECONDS)
        self._loop.close()


class Caller:
    """An object of an SDK whose methods can be called from the test, whichever kind it is of."""

    def __init__(self, kind: Kind, target: Any) -> None:
        self._kind = kind
        self.target = target

    def __getattr__(self, name: str) -> Callable:
        method = getattr(self.target, name)
        noted = (self._kind.name, type(self.target).__name__, name)

        def call(*arguments: Any, **options: Any) -> Any:
            try:
                result = self._kind.call(method, *arguments, **options)
            except Exception:
                failed.add(noted)
                raise
            called.add(noted)
            return result

        return call

    def items(self, name: str, **options: Any) -> list:
        """Returns all items of the paged answer of the method `name`."""
        return self._noted(name, lambda: self._kind.items(getattr(self.target, name)(**options)))

    def pages(self, name: str, continuation_token: str | None = None, **options: Any) -> list[list]:
        """Returns the pages of the answer of the method `name`."""
        return self._noted(
            name,
            lambda: self._kind.pages(getattr(self.target, name)(**options), continuation_token=continuation_token),
        )

    def _noted(self, name: str, call: Callable) -> Any:
        noted = (self._kind.name, type(self.target).__name__, name)
        try:
            result = call()
        except Exception:
            failed.add(noted)
            raise
        called.add(noted)
        return result
