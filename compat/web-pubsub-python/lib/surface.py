"""What the SDKs offer: their public methods, as they are installed."""

import inspect

from .sdk import Aio, Sync

NEVER_FAIL = {"close", "is_connected", "subscribe", "unsubscribe", "send_request"}
"""Methods that raise nothing: they end something, look at it, or leave it to the caller to look at the answer."""

NOT_CALLED_AS_METHODS = {"from_connection_string"}
"""Makes what the others are called on."""


def public_methods() -> set[tuple[str, str, str]]:
    """Returns (kind, class, method) for all of them."""
    return {
        (kind.name, a_class.__name__, name)
        for kind in (Sync, Aio)
        for a_class in (kind.service_class, kind.client_class)
        for name, _ in inspect.getmembers(a_class, callable)
        if not name.startswith("_") and name not in NOT_CALLED_AS_METHODS
    }
