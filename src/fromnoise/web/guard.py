"""What every page of ours is served behind: who may ask, and what a browser may do with the answer.

A server on loopback can be reached by any web page the user has open, in two ways. A page elsewhere may send it a
POST; so a POST must come from our own origin and carry JSON, which a foreign page cannot send without being asked
first. Or a foreign name is made to point at 127.0.0.1 (DNS rebinding), and its page then counts as our own; so the
Host header must be a name that is really ours. The token of a rater is the third lock, needed beyond loopback.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import socket
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY_BYTES = 32_768

# Scripts, styles and requests from this server alone; no markup from anywhere may load, send or frame anything.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str, extra: Iterable[str] = ()) -> frozenset[str]:
    """The names under which a server that listens on `host` may be asked. Beyond loopback: this machine's, and `extra`."""
    names = {*LOOPBACK_NAMES, host.lower(), *(name.lower() for name in extra)}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def token_for(secret: str, rater: str) -> str:
    """The rater's personal token: nobody without the secret can make it, and it opens no other rater's votes."""
    digest = hmac.digest(secret.encode(), f"rater\0{rater}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:24]).decode()


def is_token(given: str, secret: str, rater: str) -> bool:
    """Compared in constant time, so that how long a refusal takes tells nothing of how much was right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token_for(secret, rater).encode())


def host_name(host: str) -> str:
    """The name or address of a Host header or an origin, without port and IPv6 brackets."""
    name, _, port = host.strip().lower().rpartition(":")
    if not name or not port.isdigit():
        name = host.strip().lower()  # no port
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


class Guard:
    """ASGI middleware. Refuses foreign hosts and foreign origins; puts the security headers on every answer.

    names: lower-case host names and addresses that are ours. any_address: a literal IP address is as good (a rebound
    name is never one), for servers that listen on all of a machine's addresses.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str], any_address: bool):
        self.app, self.names, self.any_address = app, names, any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websocket is served; the server closes it

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *ours]}
            await send(message)

        problem = self.problem(scope)
        if problem is None:
            await self.app(scope, receive, with_headers)
        else:
            status, text = problem
            await JSONResponse({"error": text}, status)(scope, receive, with_headers)

    def problem(self, scope: Scope) -> tuple[int, str] | None:
        """(HTTP status, reason) of a request that must not go through."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self.is_ours(hosts[0]):
            return 421, f"this server is not called {', '.join(hosts)[:100] or '(nothing)'}; if it should be, start it with --public-name"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if not all(self.is_own_origin(origin.partition("://")[2].lower(), hosts[0].lower()) for origin in headers.get("origin", [])):
            return 403, "this request comes from another site"
        if any(site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])):
            return 403, "this request comes from another site"
        if [value.partition(";")[0].strip().lower() for value in headers.get("content-type", [])] != ["application/json"]:
            return 415, "send application/json"
        return None

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` (host and port) is ours. Most reverse proxies put their own target in the Host header, which is then
        loopback where the page has the public name."""
        return origin == host or (host_name(host) in LOOPBACK_NAMES and host_name(origin) in self.names - LOOPBACK_NAMES)

    def is_ours(self, host: str) -> bool:
        """Whether a Host header, port and IPv6 brackets included, names this server."""
        name = host_name(host)
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address
