"""Every way in which a call through litellm fails, as an error of `m3i.ledger.request`.

litellm wraps a provider's error at least twice, and its own class and status are sometimes wrong (a broken connection
becomes InternalServerError 500). So the chain of causes is read: first an HTTP status that was really received, then
what happened to the connection, and litellm's own class last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from m3i.ledger.request import AccountError, CallError, RequestError, TooLong, Transient
from m3i.ledger.secrets import message
from m3i.llm.retry_after import retry_after_s
from m3i.llm.sdk import bad_key, connection_error

from .keys import named_variables

ADDRESS = "the option `api_base`, else the provider's own"
ACCOUNT_WORDS = ("credit balance", "insufficient_quota", "exceeded your current quota", "billing", "api key not valid")
"""Words in a 400 or 429 that waiting cannot resolve, since it concerns the account."""
TOO_LONG_WORDS = ("context_length_exceeded", "maximum context length", "prompt is too long", "context window")
PREFIXES = re.compile(r"^(?:litellm\.)?\w+(?:Error|Exception)?: (?=.)|^\w+(?:Error|Exception) - ")
"""What litellm puts before a provider's message."""


def call_error(error: Exception, model: str) -> CallError:
    """Maps the error of a call."""
    import httpx
    import openai
    from litellm import exceptions

    causes = list(chain(error))
    words = words_of(error)
    if isinstance(error, exceptions.ContextWindowExceededError):
        return TooLong(f"{model}: {words}")
    answered = next((e.response for e in causes if isinstance(e, httpx.HTTPStatusError)), None)
    if answered is not None:
        return status_error(answered.status_code, words, answered.headers, model)
    broken = next((e for e in causes if isinstance(e, (httpx.TransportError, httpx.InvalidURL))), None)
    if broken is not None:
        return connection_error(broken, http=httpx, who=model, address=ADDRESS, keys=keys_of(model))
    sent = any(isinstance(e, (openai.APIConnectionError, json.JSONDecodeError)) for e in causes)
    if isinstance(error, exceptions.Timeout):
        return Transient(f"{model}: {words}", maybe_billed=True)
    if any(isinstance(e, openai.APIConnectionError) and isinstance(e.__cause__, ValueError) for e in causes):
        return bad_key(model, keys_of(model))
    if not sent and isinstance(error, (exceptions.AuthenticationError, exceptions.PermissionDeniedError)):
        return AccountError(f"{model}: {words}. Check {keys_of(model)}")
    if not sent and isinstance(error, (openai.BadRequestError, openai.NotFoundError)):
        return RequestError(f"{model}: {words}. litellm did not send it: check model and its options")
    return Transient(f"{model}: the response cannot be read ({words})", status=200, maybe_billed=True)


def status_error(status: int, words: str, headers: Mapping[str, str], model: str) -> CallError:
    """The error for an HTTP status other than 200."""
    text, low = f"{model} answered {status}: {words}", words.lower()
    account = any(mark in low for mark in ACCOUNT_WORDS)
    if status in (401, 402, 403) or (status in (400, 429) and account):
        return AccountError(f"{text}. Check {keys_of(model)} and the account's credit and permissions")
    if status in (408, 409, 429) or status >= 500:
        return Transient(text, status=status, retry_after_s=retry_after_s(headers))
    if status == 413 or (status == 400 and any(mark in low for mark in TOO_LONG_WORDS)):
        return TooLong(text)
    if status == 404:
        return RequestError(
            f"{text}. Check that the option `model` is an id of this provider and that `api_base` is its address"
        )
    return RequestError(f"{text}. The model does not accept the request: check model, temperature, reasoning_effort")


def chain(error: BaseException | None) -> Iterator[Any]:
    """An error and its chain of causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def words_of(error: Exception) -> str:
    """The provider's message without litellm's prefixes, on one line and without secrets."""
    text = " ".join(str(error).split())
    while (shorter := PREFIXES.sub("", text, count=1)) != text:
        text = shorter
    return message(text)[:500].rstrip(".")


def keys_of(model: str) -> str:
    """The variables that may hold the key, as text for messages."""
    return " or ".join(named_variables(model)) or "the provider's credentials"
