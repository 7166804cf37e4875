"""The one page: HTML with its style and script in it, and the policy under which a browser may run just these."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """A page and its Content-Security-Policy."""

    html: bytes
    policy: str


@cache
def page(name: str) -> Page:
    """Given a page's file in this package, return it. Nothing that is not in it may be loaded, run or asked for."""
    html = files(__package__).joinpath(name).read_text()
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed[kind].append(f"'sha256-{digest}'")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(allowed['script']) or chr(39) + 'none' + chr(39)}",
            f"style-src {' '.join(allowed['style'])}",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
    return Page(html.encode(), policy)
