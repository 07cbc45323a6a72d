"""Every way in which a call to Gemini fails, as an error of `m3i.ledger.request`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from m3i.ledger.request import AccountError, CallError, RequestError, TooLong, Transient
from m3i.llm.retry_after import retry_after_s
from m3i.llm.sdk import connection_error, name_of

KEYS = "GEMINI_API_KEY (or GOOGLE_API_KEY, which the SDK prefers)"
ADDRESS = "GOOGLE_GEMINI_BASE_URL, else the Gemini API"
ACCOUNT_WORDS = ("api key", "location is not supported", "billing", "prepayment", "credits are depleted")
"""Words in a 400 that concerns the account and not the request."""
SPENT_WORDS = ("credits are depleted", "prepayment", "limit: 0")
"""Words in a 429 that waiting cannot resolve."""
TOO_LONG = re.compile("token count.*exceeds|payload size exceeds|too many tokens", re.I)
STATUSES = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 13: 500, 14: 503, 16: 401}
"""gRPC's codes, used in the responses of a batch → HTTP's."""


def call_error(error: Exception) -> CallError:
    """Maps the error of an SDK call."""
    import httpx2
    from google.genai import errors

    if isinstance(error, errors.APIError):
        headers = getattr(error.response, "headers", None) or {}
        return status_error(error.code, str(error.message or error.status), error.details, headers)
    if isinstance(error, (httpx2.HTTPError, httpx2.InvalidURL, UnicodeEncodeError)):
        return connection_error(error, http=httpx2, who="Gemini", address=ADDRESS, keys=KEYS)
    return Transient(f"Gemini: the response cannot be read as JSON ({name_of(error)})", 200, maybe_billed=True)


def no_client(error: Exception) -> CallError:
    """The error if the SDK's client could not be created; nothing was sent."""
    return AccountError(f"Gemini: the SDK found no usable key ({name_of(error)}): set {KEYS}")


def status_error(status: int, words: str, details: Any, headers: Mapping[str, str]) -> CallError:
    """The error for an HTTP status other than 200."""
    text, low, listed = f"Gemini answered {status}: {words[:500]}", words.lower(), items(details)
    if status == 429 and (any(mark in low for mark in SPENT_WORDS) or daily(listed)):
        return AccountError(f"{text}. Check the plan and billing of the account behind {KEYS}")
    if status in (408, 409, 429, 499) or status >= 500:
        wait = retry_after_s(headers)
        return Transient(text, status=status, retry_after_s=retry_delay_s(listed) if wait is None else wait)
    if status in (401, 402, 403) or (status == 400 and any(mark in low for mark in ACCOUNT_WORDS)):
        return AccountError(f"{text}. Check {KEYS} and the account's billing and region")
    if status == 413 or (status == 400 and TOO_LONG.search(words)):
        return TooLong(text)
    if status == 404:
        return RequestError(
            f"{text}. Check that the option `model` is an id of this API; they are listed at "
            "https://ai.google.dev/gemini-api/docs/models"
        )
    return RequestError(
        f"{text}. The model does not accept the request: check model, thinking_budget, thinking_level, temperature"
    )


def batch_error(code: int, words: str) -> CallError:
    """The error for a request that failed inside a batch, from its gRPC code."""
    return status_error(STATUSES.get(code, code if code >= 100 else 500), words, None, {})


def items(details: Any) -> list[Mapping[str, Any]]:
    """The typed details in an error's body."""
    error = details.get("error", details) if isinstance(details, dict) else {}
    found = error.get("details") if isinstance(error, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def retry_delay_s(listed: list[Mapping[str, Any]]) -> float | None:
    """Seconds that the body asks to wait, e.g. `34.5s`."""
    for item in listed:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(item.get("retryDelay", "")))
        if found:
            return float(found[1])
    return None


def daily(listed: list[Mapping[str, Any]]) -> bool:
    """Whether a daily quota is used up; the retry delay that comes with it is then too short."""
    violations = [v for item in listed for v in item.get("violations") or () if isinstance(v, dict)]
    return any("PerDay" in str(v.get("quotaId", "")) for v in violations)
