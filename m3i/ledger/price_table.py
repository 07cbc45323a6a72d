"""litellm's price table and the user's own prices, as `Price`.

The table is the JSON file inside the installed litellm, read without importing it (the import takes seconds and may
fetch a newer table). Prices are in US dollars per token. A price may have tiers: above a prompt length of, say, 200,000
tokens the whole call costs more. A batch has its own price, or half the normal one if the table gives none.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from m3i.component import library_version
from m3i.errors import ConfigError, did_you_mean

FILE = "model_prices_and_context_window_backup.json"

CACHE_WRITE_FACTOR = 1.25
"""Price of writing the prompt cache relative to input, for prices that give none: Anthropic's factor for 5 minutes."""
BATCH_FACTOR = 0.5
"""Price of a batch relative to single calls, if the table gives none: the published discount of all providers."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """US dollars per token."""

    input: float
    output: float
    """If thinking costs more than other output, the price of thinking: the counts do not tell them apart."""
    cache_read: float
    cache_write: float

    @property
    def dearest_input(self) -> float:
        """The most that one prompt token can cost."""
        return max(self.input, self.cache_read, self.cache_write)


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one model costs."""

    source: str
    """`litellm 1.106.2: claude-sonnet-5-5`, or `ledger.prices`."""
    single: tuple[tuple[int, Rates], ...]
    """(prompt tokens above which the rates apply, rates), ascending; the first is 0."""
    batch: tuple[tuple[int, Rates], ...]
    per_call: float = 0.0
    """US dollars per call, whatever its length."""
    cache_min_tokens: int = 0
    """Shortest prefix in tokens that the provider's prompt cache keeps; 0 if the table does not say."""

    def rates(self, prompt_tokens: int, *, batch: bool = False) -> Rates:
        """Returns the rates for a prompt of this length."""
        tiers = self.batch if batch else self.single
        return [rates for above, rates in tiers if prompt_tokens > above or above == 0][-1]

    def dearest(self, prompt_tokens: int, *, batch: bool = False) -> Rates:
        """Returns the highest of each rate over all prompts of at most this length."""
        tiers = self.batch if batch else self.single
        met = [rates for above, rates in tiers if prompt_tokens > above or above == 0]
        return Rates(
            input=max(r.input for r in met),
            output=max(r.output for r in met),
            cache_read=max(r.cache_read for r in met),
            cache_write=max(r.cache_write for r in met),
        )


def price_of(provider: str, model: str, overrides: Mapping[str, Any]) -> Price | None:
    """Returns what a model costs, from the user's prices (`ledger.prices`), else litellm's table; None if in neither.

    Raises:
        ConfigError: The user's price is not usable.
    """
    if model in overrides:
        return _from_user(model, overrides[model])
    table = price_table()
    for name, entry in _candidates(provider, model, table):
        price = _from_table(name, entry)
        if price is not None:
            return price
    return None


def price_source() -> str:
    """Returns the name and version of the table in use, for the record."""
    return f"litellm {library_version('litellm')}" if price_table() else "none (litellm is not installed)"


@cache
def price_table() -> Mapping[str, Mapping[str, Any]]:
    """Returns the table inside litellm, model → entry; empty if litellm is not installed."""
    found = importlib.util.find_spec("litellm")
    if found is None or not found.submodule_search_locations:
        return {}
    file = Path(next(iter(found.submodule_search_locations))) / FILE
    try:
        table: dict[str, Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    table.pop("sample_spec", None)
    return table


def _candidates(
    provider: str, model: str, table: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the entries that may be this model's, the likeliest first."""
    if provider == "gemini":
        names = [f"gemini/{model.removeprefix('models/')}"]
    elif provider == "anthropic":
        return [(model, table[model])] if table.get(model, {}).get("litellm_provider") == "anthropic" else []
    else:
        names = [model]
        host, _, rest = model.partition("/")
        # Without its prefix, an id may name another host's model: accept the entry only if its host matches the prefix.
        if rest and str(table.get(rest, {}).get("litellm_provider", "")).startswith(host):
            names.append(rest)
    return [(name, table[name]) for name in names if name in table]


def _from_table(name: str, entry: Mapping[str, Any]) -> Price | None:
    """Returns one entry as a price; None if it does not price input and output per token."""
    starts = {0}
    for field in entry:
        if found := re.fullmatch(r"(?:input|output)_cost_per_token_above_(\d+)k_tokens", field):
            starts.add(int(found[1]) * 1000)
    single = [(above, _rates(entry, above, "")) for above in sorted(starts)]
    batch = [(above, _rates(entry, above, "_batches")) for above in sorted(starts)]
    if any(rates is None for _, rates in [*single, *batch]):
        return None
    return Price(
        source=f"{price_source()}: {name}",
        cache_min_tokens=int(_number(entry, "prompt_cache_min_tokens") or 0),
        single=tuple((above, rates) for above, rates in single if rates is not None),
        batch=tuple((above, rates) for above, rates in batch if rates is not None),
        per_call=_number(entry, "input_cost_per_request") or 0.0,
    )


def _rates(entry: Mapping[str, Any], above: int, suffix: str) -> Rates | None:
    """Returns the rates of one tier. A rate that the tier does not name is the base rate."""
    tier = f"_above_{above // 1000}k_tokens" if above else ""

    def rate(field: str) -> float | None:
        for middle in dict.fromkeys((tier, "")):
            own = _number(entry, field + middle + suffix)
            if own is not None:
                return own
            single = _number(entry, field + middle)
            if single is not None:
                return single * BATCH_FACTOR
        return None

    prompt, output = rate("input_cost_per_token"), rate("output_cost_per_token")
    if prompt is None or output is None:
        return None
    thinking, read, write = (
        rate(field)
        for field in (
            "output_cost_per_reasoning_token",
            "cache_read_input_token_cost",
            "cache_creation_input_token_cost",
        )
    )
    return Rates(
        input=prompt,
        output=max(output, thinking or 0.0),
        cache_read=prompt if read is None else read,
        cache_write=prompt if write is None else write,
    )


def _number(entry: Mapping[str, Any], field: str) -> float | None:
    value = entry.get(field)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


USER_KEYS = ("input", "output", "cache_read", "cache_write")


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Checks every price given by the user, to catch mistakes before the first call. Raises ConfigError."""
    for model, given in overrides.items():
        _from_user(model, given)


def _from_user(model: str, given: Any) -> Price:
    """Builds a price from the user's USD per million tokens."""
    place = f"ledger.prices[{model}]"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{place} = {given!r}: expected a mapping with input and output in USD per million tokens")
    for key in given:
        if key not in USER_KEYS:
            known = ", ".join(USER_KEYS)
            raise ConfigError(f"{place} has an unknown key {key!r}{did_you_mean(str(key), USER_KEYS)} Keys: {known}")
    for key in ("input", "output"):
        if key not in given:
            raise ConfigError(f"{place} = {dict(given)!r}: {key} is missing; give it in USD per million tokens")
    for key, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0:
            raise ConfigError(f"{place}.{key} = {value!r}: expected USD per million tokens, 0 or more")
    million = {key: float(value) / 1e6 for key, value in given.items()}
    rates = Rates(
        input=million["input"],
        output=million["output"],
        cache_read=million.get("cache_read", million["input"]),
        cache_write=million.get("cache_write", million["input"] * CACHE_WRITE_FACTOR),
    )
    half = replace(
        rates,
        input=rates.input * BATCH_FACTOR,
        output=rates.output * BATCH_FACTOR,
        cache_read=rates.cache_read * BATCH_FACTOR,
        cache_write=rates.cache_write * BATCH_FACTOR,
    )
    return Price(source="ledger.prices", single=((0, rates),), batch=((0, half),))
