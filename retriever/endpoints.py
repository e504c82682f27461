"""Servers that speak OpenAI's protocol: their addresses, what is tried again, and what is said of a failure."""

from __future__ import annotations

import json
import os
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from retriever.errors import InputError

_ATTEMPTS = 4


class EndpointError(Exception):
    """Why a server gave no answer, in words."""


def is_endpoint(name: str) -> bool:
    """Whether a model's name is an address."""
    return name.startswith(("http://", "https://"))


def address(name: str) -> tuple[str, str]:
    """The URL and the model of "http://host:port/v1#model".

    Raises: InputError for another form.
    """
    url, _, model = name.partition("#")
    if not _is_address(url):
        raise InputError(f"{name}: is no address; expected http://host:port/v1#MODEL")
    if not model:
        raise InputError(f"{name}: names no model; write it behind a #, as in {url.rstrip('/')}#MODEL")
    return url, model


def ask(url: str, body: dict[str, Any], timeout: float, pause: float) -> bytes:
    """What the server answers to a POST of this JSON.

    The environment's OPENAI_API_KEY, if set, is sent along, to no other host: a redirection is an error. timeout:
    seconds of silence that are borne; pause: seconds before the second attempt, doubled before each further one. Too
    many requests (429), errors of the server (5xx) and of the connection are tried again, three times.

    Raises: EndpointError.
    """
    request = Request(url, json.dumps(body).encode(), _headers())
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            return _answer(request, timeout)
        except _PassingError as problem:
            reason = str(problem)
    raise EndpointError(f"{reason} ({_ATTEMPTS} attempts)")


def _answer(request: Request, timeout: float) -> bytes:
    try:
        with build_opener(_NoRedirection).open(request, timeout=timeout) as response:
            answer: bytes = response.read()
            return answer
    except HTTPError as problem:
        with problem:
            said = problem.read(300).decode(errors="replace").strip()
        reason = f"status {problem.code} {problem.reason}: {said}"
        if problem.code == 429 or problem.code >= 500:
            raise _PassingError(reason) from None
        raise EndpointError(reason) from None
    except (OSError, HTTPException) as problem:  # URLError is an OSError, and so is a timeout
        raise _PassingError(str(getattr(problem, "reason", "") or problem or type(problem).__name__)) from None


class _PassingError(Exception):
    """A failure that may be over at the next attempt."""


class _NoRedirection(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Take the redirection for the answer."""


def _headers() -> dict[str, str]:
    key = os.environ.get("OPENAI_API_KEY")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        return False
