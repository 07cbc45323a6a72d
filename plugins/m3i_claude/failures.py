"""Every way in which a call to Anthropic fails, as an error of `m3i.ledger.request`."""

from __future__ import annotations

import json
from typing import Any

from m3i.ledger.request import AccountError, CallError, RequestError, TooLong, Transient
from m3i.llm.retry_after import retry_after_s
from m3i.llm.sdk import connection_error, name_of

KEYS = "ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN)"
ADDRESS = "ANTHROPIC_BASE_URL, else https://api.anthropic.com"
ACCOUNT_WORDS = ("credit balance", "usage limit", "billing")
"""Words in a 400 that concerns the account and not the request."""
PASSING_TYPES = ("api_error", "overloaded_error", "rate_limit_error", "timeout_error")


def call_error(error: Exception) -> CallError:
    """Maps the error of an SDK call."""
    import anthropic
    import httpx2

    if isinstance(error, anthropic.APIStatusError):
        return status_error(error.status_code, said(error.body) or error.message, error.response.headers)
    if isinstance(error, (anthropic.APIConnectionError, httpx2.HTTPError)):
        # The SDK wraps the HTTP library's error, but not while it streams the results of a batch.
        cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__ or error
        return connection_error(cause, http=httpx2, who="Anthropic", address=ADDRESS, keys=KEYS)
    if isinstance(error, (anthropic.APIError, json.JSONDecodeError, UnicodeDecodeError)):
        return Transient(f"Anthropic: the response cannot be read as JSON ({name_of(error)})", 200, maybe_billed=True)
    # The SDK found no credentials, or could not use those it found: nothing was sent.
    return AccountError(f"Anthropic: the SDK found no usable key ({name_of(error)}): set {KEYS}")


def said(body: Any) -> str:
    """The provider's message in an error's body."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""


def status_error(status: int, words: str, headers: Any) -> CallError:
    """The error for an HTTP status other than 200."""
    text = f"Anthropic answered {status}: {words[:500]}"
    low = words.lower()
    if status in (408, 409, 429) or status >= 500:
        return Transient(text, status=status, retry_after_s=retry_after_s(headers))
    if status in (401, 402, 403) or (status == 400 and any(mark in low for mark in ACCOUNT_WORDS)):
        return AccountError(f"{text}. Check {KEYS} and the account's credit and permissions")
    if status == 413 or (status == 400 and ("prompt is too long" in low or "exceed context limit" in low)):
        return TooLong(text)
    if status == 404 and "model" in low:
        return RequestError(
            f"{text}. Check that the option `model` is an id of this API; they are listed at "
            "https://platform.claude.com/docs/en/about-claude/models/overview"
        )
    return RequestError(
        f"{text}. The model does not accept the request: check model, effort, thinking, thinking_budget"
    )


def batch_error(kind: str, words: str) -> CallError:
    """The error for a request that failed inside a batch, which has no status, only the provider's error type."""
    if kind in PASSING_TYPES:
        return Transient(f"Anthropic ({kind}, in a batch): {words[:500]}")
    status = {"authentication_error": 401, "billing_error": 402, "permission_error": 403, "not_found_error": 404}
    return status_error(413 if kind == "request_too_large" else status.get(kind, 400), words, {})
