"""A TCP proxy before the service that cuts connections as a bad network does."""

import select
import socket
import struct
import threading

READ_BYTES_MAX = 16 * 1024
"""Bytes that are passed on at a time."""


class Proxy:
    """Passes connections on to `target` (`host:port`) until told otherwise."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._is_closed_to_newcomers = False
        self.turned_away = threading.Semaphore(0)
        """Released each time a newcomer was turned away."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def way_to(self, url: str) -> str:
        """Returns `url` with this proxy in place of the service."""
        scheme, rest = url.split("://", 1)
        _, slash, path = rest.partition("/")
        return f"{scheme}://{self.address}{slash}{path}"

    def cut(self, *, reset: bool = False) -> int:
        """Ends every connection, by a reset or orderly but without a close frame; returns how many there were."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.end(reset)
        for link in links:
            link.thread.join()
        return len(links)

    def cut_after(self, count: int, *, reset: bool = True) -> None:
        """Ends every connection once `count` more bytes have come from the service, wherever in a frame that is."""
        with self._lock:
            for link in self._links:
                link.bytes_left, link.resets_at_the_end = count, reset

    def close_door(self) -> None:
        """From now on whoever connects is turned away at once."""
        with self._lock:
            self._is_closed_to_newcomers = True

    def open_door(self) -> None:
        with self._lock:
            self._is_closed_to_newcomers = False

    def end(self) -> None:
        # A blocked accept holds the socket open; the shutdown wakes it.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_closed_to_newcomers:
                    client.close()
                    self.turned_away.release()
                    continue
                try:
                    host, port = self.target.rsplit(":", 1)
                    service = socket.create_connection((host, int(port)))
                except OSError:
                    client.close()
                    self.turned_away.release()
                    continue
                link = _Link(client, service, self._forget)
                self._links.add(link)
                link.thread.start()

    def _forget(self, link: "_Link") -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One connection, both ways. Its thread alone touches the sockets, so that a reset really is one."""

    def __init__(self, client: socket.socket, service: socket.socket, forget) -> None:
        self._client, self._service, self._forget = client, service, forget
        self._wake_up, self._alarm = socket.socketpair()
        self.bytes_left: int | None = None
        self.resets_at_the_end = False
        self.thread = threading.Thread(target=self._pass_on, daemon=True)
        for side in (client, service):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def end(self, reset: bool) -> None:
        self.resets_at_the_end = reset
        try:
            self._alarm.send(b"!")
        except OSError:
            pass

    def _pass_on(self) -> None:
        try:
            while self._pass_some():
                pass
        except OSError:
            pass
        finally:
            self._forget(self)
            for side in (self._client, self._service):
                if self.resets_at_the_end:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.close()
            self._alarm.close()
            self._wake_up.close()

    def _pass_some(self) -> bool:
        """Passes on what is there; returns whether there may be more."""
        readable, _, _ = select.select([self._wake_up, self._client, self._service], [], [])
        if self._wake_up in readable:
            return False
        for side, other in ((self._client, self._service), (self._service, self._client)):
            if side not in readable:
                continue
            data = side.recv(READ_BYTES_MAX)
            if not data:
                return False
            if side is self._service and self.bytes_left is not None:
                data = data[: self.bytes_left]
                self.bytes_left -= len(data)
            other.sendall(data)
            if self.bytes_left == 0:
                return False
        return True
