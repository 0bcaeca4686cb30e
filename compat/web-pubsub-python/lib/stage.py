"""What nearly every test needs: one service, one upstream, and a hub of its own for each test, for both kinds of the SDKs."""

import itertools
import sys
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.messaging.webpubsubclient.models import (
    CallbackType,
    OnGroupDataMessageArgs,
    SendMessageError,
    WebPubSubDataType,
    WebPubSubProtocolType,
)

from .proxy import Proxy
from .sdk import Aio, Caller, Kind, Sync
from .service import Service
from .upstream import Handler, Upstream, UpstreamHub
from .waiting import Mailbox, eventually

TEXT, JSON, BINARY, PROTOBUF = (
    WebPubSubDataType.TEXT,
    WebPubSubDataType.JSON,
    WebPubSubDataType.BINARY,
    WebPubSubDataType.PROTOBUF,
)

ERROR_CODES = {400: "BadRequest", 401: "Unauthorized", 404: "NotFound"}
"""By status; others have codes of their own."""

EVERY_ROLE = ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"]

ACK_SECONDS_MAX = 5.0
"""
How long the SDK waits for an ack before it looks whether one came. In the blocking kind an ack that is there before the wait
begins wakes nobody, so this time passes; nothing is wrong then.
"""

OPEN_SECONDS_MAX = 5.0
"""The same for a connection that is open before the wait for it begins."""


@dataclass(frozen=True)
class Message:
    """What a client was sent; `group` and `user` are absent in messages of the server."""

    data: Any
    type: str = "text"
    group: str | None = None
    user: str | None = None


class Client:
    """A client with the record of what its callbacks were told."""

    def __init__(self, kind: Kind, url: str | Callable[[], str], *, protocol=WebPubSubProtocolType.JSON_RELIABLE, **options) -> None:
        self._kind = kind
        credential = url if isinstance(url, str) else kind.credential_class(kind.provider(url))
        options = {
            "message_retry_total": 0,
            "reconnect_retry_backoff_factor": 0.1,
            "ack_timeout": ACK_SECONDS_MAX,
            "start_timeout": OPEN_SECONDS_MAX,
            **options,
        }
        self.sdk = Caller(kind, kind.call(kind.client_class, credential, protocol_type=protocol, **options))
        self.connections = Mailbox("a connected callback")
        self.disconnections = Mailbox("a disconnected callback")
        self.stops = Mailbox("a stopped callback")
        self.failed_joins = Mailbox("a rejoin-group-failed callback")
        self.messages = Mailbox("a message to a client")
        for event, function in {
            CallbackType.CONNECTED: self.connections.put,
            CallbackType.DISCONNECTED: self.disconnections.put,
            CallbackType.STOPPED: lambda: self.stops.put(None),
            CallbackType.REJOIN_GROUP_FAILED: self.failed_joins.put,
            CallbackType.GROUP_MESSAGE: self.messages.put,
            CallbackType.SERVER_MESSAGE: self.messages.put,
        }.items():
            self.sdk.subscribe(event, kind.listener(function))
        self.id = ""

    def open(self) -> "Client":
        """Connects, and waits for the connected message."""
        self.sdk.open()
        self.id = self.connections.next().connection_id
        return self

    def close(self) -> None:
        """Closes, and waits for the callback."""
        self.sdk.close()
        self.stops.next()

    def next(self) -> Message:
        """Takes the next message."""
        return as_message(self.messages.next())

    def taken(self) -> list:
        """
        Takes what has come, in its order. Reliable messages carry their place; others are in the order of their callbacks, which
        in the blocking kind is not always that of the messages.
        """
        self._kind.settle()
        return sorted(self.messages.take_all(), key=lambda message: message.sequence_id or 0)

    def wait_for_mark(self, mark: str) -> list:
        """Waits for the message `mark`, takes it and all that came before, and returns the latter."""
        found = []
        while True:
            message = self.messages.next()
            found.append(message)
            if is_mark(message, mark):
                break
        found += self.taken()
        found.sort(key=lambda message: message.sequence_id or 0)
        return [message for message in found if not is_mark(message, mark)]


def is_mark(message: Any, mark: str) -> bool:
    return message.data_type == "text" and message.data == mark


def as_message(arguments: Any) -> Message:
    data = bytes(arguments.data) if isinstance(arguments.data, memoryview) else arguments.data
    if isinstance(arguments, OnGroupDataMessageArgs):
        return Message(data, arguments.data_type, arguments.group, arguments.from_user_id)
    return Message(data, arguments.data_type)


class Stage:
    """A service and its upstream. `configuration` is TOML for hubs and limits."""

    def __init__(self, configuration: str = "", top: str = "") -> None:
        self.upstream = Upstream()
        try:
            self.service = Service(
                f"{top}\n{configuration}\n"
                "[[defaults.event_handler]]\n"
                f'url_template = "{self.upstream.url_template}"\n'
                'system_events = ["connect", "connected", "disconnected"]\n'
            )
        except BaseException:
            self.upstream.end()
            raise

    def end(self) -> None:
        """
        Stops the service and looks back at all that happened: it must end well, every event must have been well-formed, and every
        connection that was let in must have had its three system events, each once and in their order.
        """
        code = self.service.stop()
        log = self.service.log
        faults = self.upstream.whole_record_faults()
        self.clear()
        assert code == 0, f"the service ended with {code}:\n{log}"
        assert "panicked" not in log, log
        assert not faults, "\n".join(faults)

    def clear(self) -> None:
        self.service.clear()
        self.upstream.end()


class Case(unittest.TestCase):
    """A test with a hub of its own: `self.hub`, `self.service` (the service client) and `self.upstream` (that hub's events)."""

    kind_class: type[Kind]
    kind: Kind
    configuration = ""
    """TOML for the service: tables."""
    top_level = ""
    """TOML for the service: top-level keys."""
    stage: Stage

    maxDiff = 4000
    _numbers = itertools.count(1)

    @classmethod
    def setUpClass(cls) -> None:
        cls.kind = cls.kind_class()
        cls.stage = Stage(cls.configuration, cls.top_level)

    @classmethod
    def tearDownClass(cls) -> None:
        try:
            cls.stage.end()
        finally:
            cls.stage.clear()
            cls.kind.end()

    def setUp(self) -> None:
        self._clients: list[Client] = []
        self.addCleanup(self._close_clients)
        self.use_hub(f"room_{next(self._numbers)}")

    def _close_clients(self) -> None:
        """Closes all at once: one alone takes a second in the asyncio kind."""
        if self._clients:
            with ThreadPoolExecutor(len(self._clients)) as pool:
                list(pool.map(lambda client: client.sdk.close(), self._clients))

    def use_hub(self, hub: str, handlers: dict[str, Handler] | None = None) -> None:
        self.hub = hub
        self.upstream: UpstreamHub = self.stage.upstream.hub(hub, handlers or {})
        self.service = self.service_client()
        self._marks = itertools.count(1)

    def answer(self, **handlers: Handler) -> None:
        """Sets how the upstream answers events."""
        self.upstream.handlers.update(handlers)

    def service_client(self, connection_string: str | None = None, hub: str | None = None, **options) -> Caller:
        """Returns a service client made from a connection string."""
        return self.called(
            self.kind.service_class.from_connection_string,
            connection_string or self.stage.service.connection_string,
            hub or self.hub,
            **options,
        )

    def called(self, make: Callable, *arguments: Any, **options: Any) -> Caller:
        """Returns the service client that `make` returns; it is closed after the test."""
        client = Caller(self.kind, self.kind.call(make, *arguments, **options))
        self.addCleanup(client.close)
        return client

    def url(self, user: str | None = None, **options) -> str:
        """Returns a client URL with a token."""
        return self.service.get_client_access_token(user_id=user, **options)["url"]

    def client(self, url: str | Callable[[], str] | None = None, **options) -> Client:
        """Returns a client that is not open yet, by default one that may do everything; it is closed after the test."""
        client = Client(self.kind, self.url(roles=EVERY_ROLE) if url is None else url, **options)
        self._clients.append(client)
        return client

    def join(self, user: str | None = None, *, roles: list[str] = EVERY_ROLE, groups: list[str] = (), **options) -> Client:
        """Returns an open client of this user."""
        return self.client(self.url(user, roles=roles, groups=list(groups)), **options).open()

    def proxy(self, target: str | None = None) -> Proxy:
        proxy = Proxy(target or self.stage.service.address)
        self.addCleanup(proxy.end)
        return proxy

    def got(self, *expectations: tuple) -> None:
        """
        Makes sure that each client has got just the messages beside it since it was last looked at, and nothing else: a broadcast
        closes each list, since messages of one sender arrive in order.
        """
        mark = f"mark {next(self._marks)}"
        self.service.send_to_all(mark, content_type="text/plain")
        for client, *messages in expectations:
            self.assertEqual([as_message(message) for message in client.wait_for_mark(mark)], messages)

    def refused(self, status: int, call: Callable, *arguments: Any, **options: Any) -> HttpResponseError:
        """Makes sure that a call to the service is refused with this status, and its code; returns the error."""
        with self.assertRaises(HttpResponseError) as caught:
            call(*arguments, **options)
        error = caught.exception
        self.assertEqual(error.status_code, status, error)
        code = ERROR_CODES.get(status)
        told = error.response.headers.get("x-ms-error-code", "")
        self.assertRegex(told, rf"^Error\.{code or '[A-Z][A-Za-z]+'}$")
        if error.response.request.method != "HEAD":
            self.assertIsNotNone(error.error, error)
            self.assertEqual(f"Error.{error.error.code}", told)
            self.assertTrue(error.error.message)
        return error

    def send_fails(self, name: str, call: Callable, *arguments: Any, **options: Any) -> SendMessageError:
        """Makes sure that a client's call fails with an error of this name; returns the error."""
        with self.assertRaises(SendMessageError) as caught:
            call(*arguments, **options)
        self.assertIsNotNone(caught.exception.error_detail, caught.exception)
        self.assertEqual(caught.exception.error_detail.name, name, caught.exception.error_detail.message)
        return caught.exception

    def has_joined(self, group: str, client_id: str) -> None:
        """Waits until this connection is a member of the group."""

        def is_member() -> bool:
            members = self.service.items("list_connections", group=group)
            return client_id in (member.connection_id for member in members)

        eventually(is_member, f"{client_id} in group {group}")

    def is_gone(self, client_id: str) -> None:
        """Waits until the service has ended this connection."""
        eventually(lambda: not self.service.connection_exists(client_id), f"the end of {client_id}")


def both(body: type) -> None:
    """Makes two test cases of `body`, one for each kind."""
    module = sys.modules[body.__module__]
    for kind in (Sync, Aio):
        name = f"{body.__name__}{kind.name.title()}"
        members = {"kind_class": kind, "__module__": body.__module__, "__qualname__": name, "__doc__": body.__doc__}
        setattr(module, name, type(name, (body, Case), members))
