"""What a call costs: the price table, the user's prices, and a bound that is one."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_provider import request

from m3i.errors import ConfigError
from m3i.ledger import price_table
from m3i.ledger.price_table import price_of
from m3i.ledger.prices import OVERHEAD_TOKENS, Prefix, cost, estimate, price_source
from m3i.ledger.request import Block, Message, ModelRequest, Usage

USAGE = Usage(input_tokens=1000, cache_read_tokens=20_000, cache_write_tokens=3000, output_tokens=400)


def million(*pairs):
    """Dollars of (tokens, USD per million tokens)."""
    return sum(tokens * usd for tokens, usd in pairs) / 1e6


# By hand, from the providers' price lists: input / cache read / cache write / output in USD per million tokens.
BY_HAND = [
    ("anthropic", "claude-sonnet-5-5", USAGE, False, million((1000, 2), (20_000, 0.1), (3000, 2.5), (400, 10))),
    ("anthropic", "claude-sonnet-5-5", USAGE, True, million((1000, 1), (20_000, 0.05), (3000, 1.25), (400, 5))),
    ("gemini", "gemini-2.5-pro", USAGE, False, million((1000, 1.25), (20_000, 0.125), (3000, 1.25), (400, 10))),
    ("gemini", "models/gemini-2.5-pro", USAGE, True, million((1000, 0.625), (20_000, 0.125), (3000, 0.625), (400, 5))),
    # a prompt of 200,001 tokens: all of it at the dearer rate
    *(
        ("gemini", "gemini-2.5-pro", Usage(input_tokens=n, output_tokens=10), False, million((n, rate), (10, out)))
        for n, rate, out in ((200_000, 1.25, 10), (200_001, 2.5, 15))
    ),
    ("litellm", "openai/gpt-4o", Usage(input_tokens=1000, output_tokens=400), False, million((1000, 2.5), (400, 10))),
    ("litellm", "gpt-4o", Usage(cache_read_tokens=1000), False, million((1000, 1.25))),
    ("litellm", "openai/gpt-4o", Usage(cache_read_tokens=1000), True, million((1000, 0.625))),  # none given: half
]


@pytest.mark.parametrize(("provider", "model", "usage", "batch", "dollars"), BY_HAND)
def test_prices_are_those_worked_out_by_hand(provider, model, usage, batch, dollars):
    assert cost(usage, price_of(provider, model, {}), batch=batch) == pytest.approx(dollars, rel=1e-12)


def test_the_tables_version_is_cited():
    assert price_source().startswith("litellm 1.")
    assert price_of("anthropic", "claude-sonnet-5-5", {}).source == f"{price_source()}: claude-sonnet-5-5"


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-nobody-knows"),
        ("anthropic", "gpt-4o"),  # not Anthropic's
        ("litellm", "somehost/gpt-4o"),  # another host's price says nothing about this one's
        ("litellm", "sample_spec"),
        ("litellm", "dall-e-3"),  # not priced by the token
    ],
)
def test_a_model_without_a_price_of_its_own_has_none(provider, model):
    assert price_of(provider, model, {}) is None


def test_without_litellm_there_are_only_the_users_prices(monkeypatch):
    monkeypatch.setattr(price_table, "price_table", dict)
    assert price_of("anthropic", "claude-sonnet-5-5", {}) is None
    assert "not installed" in price_source()
    assert price_of("anthropic", "m", {"m": {"input": 1, "output": 2}}).source == "ledger.prices"


def test_the_users_price_goes_first_and_its_gaps_are_filled():
    price = price_of("anthropic", "claude-sonnet-5-5", {"claude-sonnet-5-5": {"input": 4, "output": 8}})
    assert cost(USAGE, price) == pytest.approx(million((1000, 4), (20_000, 4), (3000, 5), (400, 8)))
    assert cost(USAGE, price, batch=True) == pytest.approx(cost(USAGE, price) / 2)
    whole = {"input": 4, "output": 8, "cache_read": 0.4, "cache_write": 6}
    price = price_of("anthropic", "m", {"m": whole})
    assert cost(USAGE, price) == pytest.approx(million((1000, 4), (20_000, 0.4), (3000, 6), (400, 8)))
    with pytest.raises(ConfigError, match=r"ledger\.prices\[m\].*'inputs'.*did you mean 'input'"):
        price_of("anthropic", "m", {"m": {**whole, "inputs": 1}})


def test_every_price_in_the_table_can_be_read():
    known = 0
    for name in price_table.price_table():
        price = price_of("litellm", name, {})
        if price is None:
            continue
        known += 1
        for batch in (False, True):
            for n in (0, 10**5, 10**6):
                assert cost(Usage(input_tokens=n), price, batch=batch) <= cost(Usage(input_tokens=10 * n), price) + 1e-9
                assert math.isfinite(cost(USAGE, price, batch=batch))
    assert known > 1000


# -- the estimator ----------------------------------------------------------------------------

PRICE = price_of("gemini", "gemini-2.5-pro", {})


@given(
    system=st.lists(st.text(max_size=60), max_size=3),
    turns=st.lists(st.lists(st.text(max_size=60), max_size=3), min_size=1, max_size=3),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    overhead=st.integers(0, OVERHEAD_TOKENS),
    huge=st.booleans(),
    batch=st.booleans(),
)
def test_no_call_costs_more_than_its_bound(system, turns, shares, overhead, huge, batch):
    filler = "é" * 130_000 if huge else ""  # may cross the 200,000 tokens where it gets dearer
    asked = ModelRequest(
        provider="gemini",
        model="gemini-2.5-pro",
        system=tuple(Block(text=t) for t in [*system, filler]),
        messages=tuple(Message(role="user", blocks=tuple(Block(text=t) for t in turn)) for turn in turns),
        schema={"type": "object", "title": "é"},
        max_tokens=500,
    )
    found = estimate(asked, PRICE, batch=batch)
    text = "".join([*system, filler, *(t for turn in turns for t in turn), json.dumps(asked.schema)])
    # the worst tokenizer there is: a token a byte, and all that a provider may add
    total = len(text.encode()) + overhead
    written, read = int(total * shares[0]), int(total * (1 - shares[0]) * shares[1])
    usage = Usage(
        input_tokens=total - written - read,
        cache_write_tokens=written,
        cache_read_tokens=read,
        output_tokens=int(500 * shares[2]),
    )
    assert total <= found.input_tokens_at_most
    assert cost(usage, PRICE, batch=batch) <= found.usd_at_most
    assert found.usd_expected <= found.usd_at_most


def test_the_bound_holds_where_one_character_becomes_many_tokens():
    assert estimate(request("ﷺ" * 100), None).input_tokens_at_most >= 33 * 100  # normalised, it is 18 letters


def test_what_is_expected_is_worked_out_by_hand():
    price = price_of("anthropic", "claude-sonnet-5-5", {})
    asked = ModelRequest(
        provider="anthropic",
        model="claude-sonnet-5-5",
        system=(Block(text="r" * 3500, cache=True),),
        messages=(Message(role="user", blocks=(Block(text="p" * 700, cache=True), Block(text="v" * 350))),),
        schema=None,
        max_tokens=1000,
    )
    found = estimate(asked, price, expected_output_tokens=200)
    assert (found.input_tokens_expected, found.cached_tokens_expected, found.output_tokens_expected) == (
        1300,
        1200,
        200,
    )
    assert found.usd_expected == pytest.approx(million((1300, 2), (200, 10)))
    written = estimate(asked, price, expected_output_tokens=200, prefix=Prefix.written)
    assert written.usd_expected == pytest.approx(million((100, 2), (1200, 2.5), (200, 10)))
    read = estimate(asked, price, expected_output_tokens=200, prefix=Prefix.read, batch=True)
    assert read.usd_expected == pytest.approx(million((100, 1), (1200, 0.05), (200, 5)))
    assert found.usd_at_most == pytest.approx(million((4550 + OVERHEAD_TOKENS + 64, 2.5), (1000, 10)))
    assert estimate(asked, None).usd_at_most is None
    assert estimate(asked, price, expected_output_tokens=10**6).output_tokens_expected == 1000
