"""Access control: with a token those who have it, without one this machine alone; and the headers of every answer."""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from codedance_verl.runtime.loopback import names_loopback

COOKIE = "codedance_view"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal of aiohttp: before an answer begins."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")


def admission(token: str | None) -> Middleware:
    """Refuse requests without the token. That of the first visit, `?token=`, becomes a cookie closed to scripts."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is None:
            # A page elsewhere may have its own name resolve to 127.0.0.1; the Host header still holds that name.
            if not names_loopback(request.host):
                raise web.HTTPForbidden(text=f"unknown host {request.host}\n")
            return await handler(request)
        if _same(request.query.get("token", ""), token) and request.method == "GET":
            # The token leaves the address at once, so that it is in no history and no Referer.
            rest = {name: value for name, value in request.query.items() if name != "token"}
            moved = web.HTTPSeeOther(str(request.rel_url.with_query(rest)))
            moved.set_cookie(COOKIE, token, httponly=True, samesite="Strict", path="/")
            raise moved
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not _same(request.cookies.get(COOKIE, ""), token) and not _same(bearer, token):
            raise web.HTTPUnauthorized(text="open the address that `codedance view` printed, token included\n")
        return await handler(request)

    return admit


def _same(given: str, token: str) -> bool:
    # Takes as long for a wrong token as for a right one.
    return hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())
