"""What a call costs, and the one estimator that serves both the dry run and the budget."""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import dataclass
from enum import Enum

from m3i.ledger.price_table import Price, Rates, price_of, price_source
from m3i.ledger.request import ModelRequest, Usage

__all__ = [
    "CallEstimate",
    "Prefix",
    "Price",
    "Rates",
    "cost",
    "estimate",
    "price_of",
    "price_source",
]

OVERHEAD_TOKENS = 2048
"""Maximum tokens that a provider may add to one request: it turns a schema into instructions and marks the parts of a
prompt. Anthropic's published figure for tool use is below 1,000."""
MESSAGE_TOKENS = 32
"""Maximum tokens around one message: its role and its end markers."""
CHARACTERS_PER_TOKEN = 3.5
"""Used for the expected cost, never for the bound. English prose has about 4, arithmetic and JSON about 3."""
EXPECTED_OVERHEAD_TOKENS = 300
"""Tokens that a provider is expected to add to a request with a schema."""


def cost(usage: Usage, price: Price, *, batch: bool = False) -> float:
    """Returns the cost of one call in US dollars, from the tokens that the provider counted."""
    rates = price.rates(usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens, batch=batch)
    return (
        usage.input_tokens * rates.input
        + usage.cache_read_tokens * rates.cache_read
        + usage.cache_write_tokens * rates.cache_write
        + usage.output_tokens * rates.output
        + price.per_call
    )


# -- estimates --------------------------------------------------------------------------------


class Prefix(Enum):
    """What the provider's prompt cache is expected to do with the marked part of the prompt."""

    unused = "unused"
    written = "written"
    """Expected of the first call of a panel."""
    read = "read"
    """Expected of all further calls."""


@dataclass(frozen=True, kw_only=True)
class CallEstimate:
    """The most that a call can cost, and its expected cost."""

    input_tokens_at_most: int
    output_tokens_at_most: int
    usd_at_most: float | None
    """None if no price is known."""
    input_tokens_expected: int
    """The whole prompt."""
    cached_tokens_expected: int
    """The part up to the last block marked for the provider's prompt cache; 0 if that is too short to be cached."""
    output_tokens_expected: int
    usd_expected: float | None


def estimate(
    request: ModelRequest,
    price: Price | None,
    *,
    expected_output_tokens: int | None = None,
    batch: bool = False,
    prefix: Prefix = Prefix.unused,
) -> CallEstimate:
    """Returns the most that one call can cost and its expected cost; the dry run and the budget use the same figures.

    The bound assumes one input token per UTF-8 byte, each at the highest rate of a prompt token, and `max_tokens` of
    output. No tokenizer in use makes more tokens than its text has bytes (counted before or after Unicode
    normalisation, which some apply first, whichever is more).

    Args:
        request: The call.
        price: From `price_of`; None gives token counts only.
        expected_output_tokens: Expected length of the reply; None for `max_tokens`.
        batch: Whether batch prices apply.
        prefix: What the prompt cache is expected to do; it changes the expected cost, never the bound.
    """
    blocks = [*request.system, *(block for message in request.messages for block in message.blocks)]
    schema = "" if request.schema is None else json.dumps(request.schema, indent=2)
    options = json.dumps(dict(request.options)) if request.options else ""
    at_most = sum(_bytes(text) for text in [*(block.text for block in blocks), schema, options])
    at_most += OVERHEAD_TOKENS + MESSAGE_TOKENS * (1 + len(request.messages))
    output = request.max_tokens if expected_output_tokens is None else min(expected_output_tokens, request.max_tokens)

    expected = _tokens(sum(len(block.text) for block in blocks))
    compact = 0 if request.schema is None else len(json.dumps(request.schema, separators=(",", ":")))
    expected += (_tokens(compact) + EXPECTED_OVERHEAD_TOKENS) if compact else 0
    marked = max((i for i, block in enumerate(blocks) if block.cache), default=-1)
    cached = _tokens(sum(len(block.text) for block in blocks[: marked + 1]))
    if price is not None and cached < price.cache_min_tokens:
        cached = 0

    usd_at_most = usd_expected = None
    if price is not None:
        dearest = price.dearest(at_most, batch=batch)
        usd_at_most = at_most * dearest.dearest_input + request.max_tokens * dearest.output + price.per_call
        written = cached if prefix is Prefix.written else 0
        read = cached if prefix is Prefix.read else 0
        usage = Usage(
            input_tokens=expected - written - read,
            cache_read_tokens=read,
            cache_write_tokens=written,
            output_tokens=output,
        )
        usd_expected = cost(usage, price, batch=batch)
    return CallEstimate(
        input_tokens_at_most=at_most,
        output_tokens_at_most=request.max_tokens,
        usd_at_most=usd_at_most,
        input_tokens_expected=expected,
        cached_tokens_expected=cached,
        output_tokens_expected=output,
        usd_expected=usd_expected,
    )


def _bytes(text: str) -> int:
    """Returns the number of UTF-8 bytes of a text, before or after normalisation, whichever is more."""
    if text.isascii():
        return len(text)
    return max(len(form.encode("utf-8", "surrogatepass")) for form in (text, unicodedata.normalize("NFKD", text)))


def _tokens(characters: int) -> int:
    return math.ceil(characters / CHARACTERS_PER_TOKEN)
