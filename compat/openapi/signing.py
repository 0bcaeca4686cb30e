"""Tokens as the SDKs make them: HS256, their audience the URL as it is sent."""

import base64
import hashlib
import hmac
import json
import time

KEY = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(url: str, **claims: object) -> str:
    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = encoded(json.dumps({"aud": url, "exp": int(time.time()) + 60, **claims}).encode())
    signature = hmac.digest(KEY.encode(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{encoded(signature)}"
