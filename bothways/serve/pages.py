"""The pages of a server, `/` to try its models and `/docs` of its routes: one file each, with nothing from elsewhere.

They are made of the modules of an explained page and of those in `static/`; a content security policy lets the browser
run these scripts alone, and ask this server alone.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import Response

from bothways.pages.explanation import STATIC, join_modules, read_styles

OWN_STATIC = resources.files("bothways") / "serve" / "static"
PLAYGROUND_MODULES = (  # each after those that it imports
    "geometry.js", "store.js", "arrays.js", "colours.js", "dom.js", "charts.js", "matrices.js", "tokens.js",
    "thumbnails.js", "matrix_figure.js", "lines_figure.js", "attention.js", "predictions.js", "verbs.js", "asking.js",
    "results.js", "playground.js",
)  # fmt: skip
DOCS_MODULES = ("geometry.js", "dom.js", "asking.js", "docs.js")
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M1 8l5-5v3h4V3l5 5-5 5v-3H6v3z' fill='%232f6fb3'/%3E%3C/svg%3E"
)


def page_routes() -> APIRouter:
    """Both pages."""
    router = APIRouter(include_in_schema=False)
    router.get("/")(_playground)
    router.get("/docs")(_docs)
    return router


async def _playground() -> Response:
    return _page("Bothways", PLAYGROUND_MODULES)


async def _docs() -> Response:
    return _page("Bothways: all routes", DOCS_MODULES)


@functools.cache
def _page(title: str, modules: tuple[str, ...]) -> Response:
    style = read_styles("page.css") + (OWN_STATIC / "playground.css").read_text(encoding="utf-8")
    script = f"(() => {{\n{join_modules(modules, (STATIC, OWN_STATIC))}}})();"
    content = (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel=icon href="{ICON}"><title>{title}</title><style>{style}</style></head>'
        f"<body><main id=page></main><script>{script}</script></body></html>\n"
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    return Response(content, media_type="text/html", headers=headers)


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
