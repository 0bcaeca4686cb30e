"""An upstream: an HTTP server that is told the events of every hub and answers as each test wants.

It also looks at every request as such: headers that must be there, signatures, ids. What is wrong with them, and with the record
as a whole, is in `faults`.
"""

import hashlib
import hmac
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .service import PRIMARY_KEY, SECONDARY_KEY
from .waiting import Mailbox

SYSTEM_EVENTS = ("connect", "connected", "disconnected")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Event:
    """One request, as the upstream sees it."""

    hub: str
    name: str
    type: str
    connection_id: str
    user_id: str | None
    subprotocol: str | None
    state: str | None
    content_type: str
    body: bytes
    headers: dict[str, str]

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes | str = b""
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    admits: bool = True
    """Whether a success lets a client in: not if nobody can make sense of it."""


def text(body: str, **headers: str) -> Answer:
    return Answer(200, body, "text/plain", headers)


def json_body(value: Any, **headers: str) -> Answer:
    return Answer(200, json.dumps(value), "application/json", headers)


Handler = Callable[[Event], Answer]


class UpstreamHub:
    """What one hub's upstream is told and how it answers; without a handler everything is accepted with an empty 200."""

    def __init__(self, name: str, handlers: dict[str, Handler]) -> None:
        self.name = name
        self.handlers = handlers
        self._events: dict[str, Mailbox] = {}
        self._lock = threading.Lock()
        self.record: dict[str, list[str]] = defaultdict(list)
        self.admitted: set[str] = set()

    def __getitem__(self, event: str) -> Mailbox:
        """Returns the requests for this event."""
        with self._lock:
            return self._events.setdefault(event, Mailbox(f"event {event} of hub {self.name}"))


class Upstream:
    def __init__(self) -> None:
        self._hubs: dict[str, UpstreamHub] = {}
        self._ids: dict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()
        self.faults: list[str] = []
        self.origin = "127.0.0.1"
        """The name by which the service calls itself."""
        upstream = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer's head and body would otherwise wait for each other's acknowledgement.
            disable_nagle_algorithm = True

            def do_OPTIONS(self) -> None:
                upstream._validated(self)

            def do_POST(self) -> None:
                upstream._told(self)

            def log_message(self, *_) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address) -> None:
                """A service that hangs up is no fault here: the record as a whole tells."""

        self._server = Server(("127.0.0.1", 0), Requests)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url_template(self) -> str:
        """Where the events of all hubs go; `{hub}` and `{event}` are filled in by the service."""
        return f"http://127.0.0.1:{self._server.server_port}/{{hub}}/{{event}}"

    def hub(self, name: str, handlers: dict[str, Handler]) -> UpstreamHub:
        """Returns the hub of this name, which gets its events from now on."""
        with self._lock:
            hub = self._hubs[name] = UpstreamHub(name, handlers)
        return hub

    def whole_record_faults(self) -> list[str]:
        """Returns what is wrong once the service has stopped: empty when all is well."""
        faults = list(self.faults)
        for hub in self._hubs.values():
            for connection_id, events in hub.record.items():
                system = [event for event in events if event in SYSTEM_EVENTS]
                wanted = [*SYSTEM_EVENTS] if connection_id in hub.admitted else ["connect"]
                if system != wanted:
                    faults.append(f"hub {hub.name}: {system} came for {connection_id}, {wanted} expected")
                elif connection_id in hub.admitted and events[-1] != "disconnected":
                    faults.append(f"hub {hub.name}: {events[-1]} came after the end of {connection_id}")
        return faults

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, fault: str) -> None:
        with self._lock:
            self.faults.append(fault)

    def _validated(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("ce-awpsversion") != "1.0":
            self._fault(f"validation of {request.path} without ce-awpsversion")
        if request.headers.get("WebHook-Request-Origin") != self.origin:
            self._fault(f"validation of {request.path} from {request.headers.get('WebHook-Request-Origin')}")
        if not request.path.endswith("/validate"):
            self._fault(f"validation at {request.path}")
        _answer(request, Answer(headers={"WebHook-Allowed-Origin": "*"}))

    def _told(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        # http.server reads headers as Latin-1, the service writes UTF-8.
        headers = {name.lower(): value.encode("latin-1").decode() for name, value in request.headers.items()}
        event = Event(
            hub=headers.get("ce-hub", ""),
            name=headers.get("ce-eventname", ""),
            type=headers.get("ce-type", ""),
            connection_id=headers.get("ce-connectionid", ""),
            user_id=headers.get("ce-userid"),
            subprotocol=headers.get("ce-subprotocol"),
            state=headers.get("ce-connectionstate"),
            content_type=headers.get("content-type", ""),
            body=body,
            headers=headers,
        )
        self._check(request.path, event)
        with self._lock:
            hub = self._hubs.get(event.hub)
        if hub is None:
            self._fault(f"nobody expects {request.path}")
            _answer(request, Answer(404))
            return
        hub.record[event.connection_id].append(event.name)
        hub[event.name].put(event)
        answer = hub.handlers.get(event.name, lambda event: Answer())(event)
        if event.name == "connect" and 200 <= answer.status < 300 and answer.admits:
            hub.admitted.add(event.connection_id)
        _answer(request, answer)

    def _check(self, path: str, event: Event) -> None:
        """What every event must carry."""
        kind = "sys" if event.name in SYSTEM_EVENTS else "user"
        signatures = ",".join(
            "sha256=" + hmac.new(key.encode(), event.connection_id.encode(), hashlib.sha256).hexdigest()
            for key in (PRIMARY_KEY, SECONDARY_KEY)
        )
        wanted = {
            "ce-specversion": "1.0",
            "ce-awpsversion": "1.0",
            "ce-type": f"azure.webpubsub.{kind}.{event.name}",
            "ce-source": f"/hubs/{event.hub}/client/{event.connection_id}",
            "ce-signature": signatures,
            "webhook-request-origin": self.origin,
        }
        for name, value in wanted.items():
            if event.headers.get(name) != value:
                self._fault(f"{path}: {name} is {event.headers.get(name)!r}, not {value!r}")
        if not TIME.fullmatch(event.headers.get("ce-time", "")):
            self._fault(f"{path}: ce-time is {event.headers.get('ce-time')!r}")
        with self._lock:
            ids, number = self._ids[event.connection_id], event.headers.get("ce-id")
            if number is None or number in ids:
                self.faults.append(f"{path}: ce-id {number!r} of {event.connection_id} is absent or was there before")
            ids.add(number)


def _answer(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    request.send_response(answer.status)
    for name, value in answer.headers.items():
        request.send_header(name.replace("_", "-"), value)
    if answer.content_type:
        request.send_header("Content-Type", answer.content_type)
    if answer.status != 204:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if answer.status != 204:
        request.wfile.write(body)
