"""config.json of a hub model that is not on this disk: one small request with the standard library.

Nothing is stored: the hub's cache belongs to its own client. The token is sent to the hub's host only.
"""

import json
import os
import re
from http.client import HTTPException
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from lowmem_rl.errors import SetupError

_HUB = "https://huggingface.co"
_TIMEOUT_S = 5.0
LARGEST_BYTES = 1_000_000
_HUB_NAME = re.compile(r"(?!\.)[\w.-]{1,96}/(?!\.)[\w.-]{1,96}", re.ASCII)


def config_url(name: str, revision: str | None = None) -> str:
    """Returns the address of a model's config.json; HF_ENDPOINT may name another hub."""
    hub = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    return f"{hub}/{name}/resolve/{quote(revision or 'main', safe='')}/config.json"


def fetch_config(name: str, revision: str | None = None) -> dict[str, Any] | None:
    """Returns the hub's config.json of a model, None if the hub has none or does not answer in time.

    Raises `SetupError` for a gated model.
    """
    if not _HUB_NAME.fullmatch(name):
        return None
    try:
        content = json.loads(_fetch(config_url(name, revision)))
    except HTTPError as error:
        error.close()  # it holds the connection
        if error.headers.get("X-Error-Code") == "GatedRepo":
            hint = "Accept its licence on the model's page and set HF_TOKEN."
            raise SetupError(f"{name} is a gated model on the hub.", hint=hint) from error
        return None
    except (OSError, HTTPException, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


class _SameHost(HTTPRedirectHandler):
    """Follows redirects on the hub's host only: the standard library would send the token to any host."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
        return super().redirect_request(req, fp, code, msg, headers, newurl) if same else None


def _fetch(url: str) -> bytes:
    """Returns a small file. Raises `OSError` after the time limit, `ValueError` for a large one."""
    headers = {"User-Agent": "lowmem-rl"}
    if token := os.environ.get("HF_TOKEN", "").strip():
        headers["Authorization"] = f"Bearer {token}"
    deadline, content = monotonic() + _TIMEOUT_S, b""
    with build_opener(_SameHost).open(Request(url, headers=headers), timeout=_TIMEOUT_S) as answer:
        while part := answer.read1(65_536):
            content += part
            if len(content) > LARGEST_BYTES:
                raise ValueError("larger than any config.json")
            if monotonic() > deadline:
                raise TimeoutError("the hub takes too long")
    return content
