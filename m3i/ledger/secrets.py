"""Removes keys from every text before it is written to disk or printed.

Two things count as a secret: the value of an environment variable whose name says so (`..._API_KEY`, `..._TOKEN`, ...),
in plain text, URL encoded, JSON escaped or base64 encoded; and any text that looks like a known provider's key, or
stands where a key would in a header or a URL. The environment is read on each call, so a key that is set late is found
too.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

MIN_LENGTH = 8
"""Shorter values are ordinary words, not keys; removing them would garble every text."""

LONGEST_MESSAGE = 2000
"""Maximum characters kept of an error's text: some servers answer with a whole page."""

SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)(?:_ID|_?\d+)?$", re.IGNORECASE
)
"""Matches the names of environment variables that hold a secret."""

HEX = re.compile(r"%([0-9A-Fa-f]{2})")
"""One URL-encoded byte; its hex digits may be upper or lower case."""

PATTERNS: Mapping[str, re.Pattern[str]] = {
    "an Anthropic key": re.compile(r"(?P<key>sk-ant-[A-Za-z0-9_\-]{8,})"),
    "a key that begins with sk-": re.compile(r"(?<![A-Za-z0-9])(?P<key>sk-[A-Za-z0-9_\-]{16,})"),
    "a Google key": re.compile(r"(?P<key>AIza[A-Za-z0-9_\-]{16,})"),
    "a bearer token": re.compile(r"\bBearer\s+(?P<key>[A-Za-z0-9._~+/\-]{8,}=*)", re.IGNORECASE),
    "a key in a header": re.compile(
        r"\b(?:x-api-key|x-goog-api-key|api-key|authorization)[\"']?\s*[:=]\s*(?:b?[\"'])?"
        r"(?:(?:Basic|Bearer)\s+)?(?P<key>(?!Basic\b|Bearer\b|\[)[A-Za-z0-9._~+/\-]{8,}=*)",
        re.IGNORECASE,
    ),
    "a key in an address": re.compile(
        r"[?&](?:key|api[_-]?key|access_token|token)=(?P<key>[A-Za-z0-9._~%+\-]{8,})", re.IGNORECASE
    ),
    "a password in an address": re.compile(r"://[^\s/:@\"']*:(?P<key>[^\s/@\"'\[\]]{1,200})@"),
}
"""Patterns of keys that no variable holds: name → pattern; the group `key` matches the key itself."""


def redact(text: str, *, patterns: bool = True) -> str:
    """Returns the text without secrets: a variable's value becomes `[NAME]`, anything else like a key `[redacted]`.

    Args:
        text: Any text.
        patterns: Also remove text that looks like a key. False for model output that is compared with other text
            later: it may contain made-up keys and must stay as it is.
    """
    known, names = _known()
    if known is not None:
        text = known.sub(lambda match: f"[{names[_upper(match.group())]}]", text)
    if patterns:
        for pattern in PATTERNS.values():
            text = pattern.sub(_without_key, text)
    return text


def _without_key(match: re.Match[str]) -> str:
    start, end = match.start("key") - match.start(), match.end("key") - match.start()
    return match.group()[:start] + "[redacted]" + match.group()[end:]


def message(text: str) -> str:
    """Returns a text fit for a message: without secrets, of limited length, and encodable as UTF-8."""
    text = redact(text).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} ... ({len(text)} characters)"


def redact_values(value: Any, *, patterns: bool = True) -> Any:
    """Returns a JSON value with `redact` applied to every string in it, keys of mappings included."""
    if isinstance(value, str):
        return redact(value, patterns=patterns)
    if isinstance(value, Mapping):
        return {redact(str(k), patterns=patterns): redact_values(v, patterns=patterns) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_values(v, patterns=patterns) for v in value]
    return value


def holds_secret(text: str, *, patterns: bool = True) -> str | None:
    """Returns the environment variable whose value is in the text, else the kind of key it seems to hold, else None."""
    known, names = _known()
    found = known.search(text) if known is not None else None
    if found:
        return names[_upper(found.group())]
    if patterns:
        for name, pattern in PATTERNS.items():
            if pattern.search(text):
                return name
    return None


def secret_variables() -> dict[str, str]:
    """Returns the environment variables that hold a secret: name → value."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if SECRET_NAME.search(name) and len(value) >= MIN_LENGTH and not os.path.exists(value)
    }


def _known() -> tuple[re.Pattern[str] | None, Mapping[str, str]]:
    return _compiled(tuple(secret_variables().items()))


@lru_cache(maxsize=8)
def _compiled(variables: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str] | None, Mapping[str, str]]:
    """Returns one pattern that matches every form of every value, and a mapping from form to variable."""
    names: dict[str, str] = {}
    for name, value in variables:
        for form in _forms(value):
            names.setdefault(_upper(form), name)
    if not names:
        return None, names
    longest_first = (re.escape(form) for form in sorted(names, key=len, reverse=True))
    return re.compile("|".join(HEX.sub(r"%(?i:\1)", form) for form in longest_first)), names


def _upper(form: str) -> str:
    """Returns the form with its URL encoding in upper case, which is how it is looked up."""
    return HEX.sub(lambda match: match.group().upper(), form)


def _forms(value: str) -> set[str]:
    """Returns the ways a value may be written: as is, URL encoded, JSON escaped, in base64 at each of three offsets."""
    forms = {value, value.strip(), quote(value, safe=""), quote(value), quote_plus(value)}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    data = value.encode("utf-8", "surrogateescape")
    for offset in range(3):
        # Cuts off the characters at both ends that also depend on the bytes around the value.
        digits = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        first = (0, 2, 3)[offset]
        last = len(digits) if (offset + len(data)) % 3 == 0 else len(digits) - 1
        forms |= {digits[first:last], digits[first:last].replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= MIN_LENGTH}


# -- logs -------------------------------------------------------------------------------------


def redact_record(record: logging.LogRecord) -> None:
    """Removes secrets from one log record; leaves a record without any as it is."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        message = f"{record.msg} {record.args}"
    if (clean := redact(message)) != message:
        record.msg, record.args = clean, ()
    if record.exc_info and not record.exc_text:
        text = logging.Formatter().formatException(record.exc_info)
        if (clean := redact(text)) != text:
            record.exc_text, record.exc_info = clean, None
    if record.exc_text:
        record.exc_text = redact(record.exc_text)
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def install_log_redaction() -> None:
    """Keeps secrets out of all further log records of this process, whatever their logger and handler.

    Must run before the first call: the clients' own debug logs show headers (`hydra.verbose=true`). Calling it again
    has no effect.
    """
    made_by = logging.getLogRecordFactory()
    if getattr(made_by, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = made_by(*args, **kwargs)
        redact_record(record)
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)
