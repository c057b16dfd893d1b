"""`/docs`: the calls of the API on one page that loads nothing, from anywhere."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0 }}
code {{ white-space: nowrap }}
</style></head><body>
<h1>{title} {version}</h1>
<p>{summary} For viewers and generators, with all schemas: <a href="openapi.json">openapi.json</a>.</p>
<table><tr><th>call<th>parameters<th>what it does</tr>
{rows}
</table></body></html>
"""
ROW = "<tr><td><code>{method} {path}</code><td>{parameters}<td>{summary}</tr>"


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """List the calls."""
    schema: dict[str, Any] = request.app.openapi()
    rows = [
        ROW.format(
            method=method.upper(),
            path=escape(path),
            parameters=escape(", ".join(each["name"] for each in call.get("parameters", []))),
            summary=escape(call.get("description", call["summary"])),
        )
        for path, calls in schema["paths"].items()
        for method, call in calls.items()
    ]
    info = {name: escape(schema["info"][name]) for name in ("title", "version", "summary")}
    return HTMLResponse(PAGE.format(rows="\n".join(rows), **info), headers=HEADERS)
