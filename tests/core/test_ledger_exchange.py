"""A ledger as JSONL and back, and the words of `m3i ledger`."""

import asyncio
import contextlib
import json
import sqlite3

import pytest
from ledger_provider import COST, PRICES, ScriptedProvider, echo, ledger_at, request

from m3i.cli.ledger import ledger_command
from m3i.config.settings import LedgerMode
from m3i.errors import InputError, M3IError, StoreError
from m3i.ledger import BudgetError
from m3i.ledger.jsonl import export, import_
from m3i.ledger.parse_request import request_from
from m3i.ledger.prices import estimate, price_of
from m3i.ledger.request import AccountError, TooLong, Transient
from m3i.ledger.show import summary


def ask(path, provider, *requests, **settings):
    with contextlib.closing(ledger_at(path, **settings)) as ledger:

        async def all_of_them():
            return await asyncio.gather(*(ledger.ask(provider, r, purpose="test") for r in requests))

        return asyncio.run(all_of_them())


REQUESTS = [
    request(1),
    request(2, temperature=0),
    request(3, temperature=0.0),
    request("é 𝔘\x00", options={"a": [1, None]}),
]


@pytest.fixture
def published(tmp_path):
    """A recording of four answers and a refusal by length, exported."""
    path, file = tmp_path / "author.sqlite", tmp_path / "answers.jsonl"
    ask(path, ScriptedProvider(), *REQUESTS, mode=LedgerMode.record, recording="paper")

    def too_long(req, attempt):
        raise TooLong("it is too long")

    with pytest.raises(TooLong):
        ask(path, ScriptedProvider(too_long), request("long"), mode=LedgerMode.record, recording="paper")
    assert export(path, file) == 5
    return path, file


def test_the_key_survives_the_way_through_the_content():
    for asked in [*REQUESTS, request(5, temperature=0.7, replicate=3, model="m/x", provider="litellm")]:
        assert request_from(json.loads(json.dumps(asked.content()))).key == asked.key
    assert REQUESTS[1].content()["temperature"] == REQUESTS[2].content()["temperature"]


def test_an_imported_recording_replays_without_a_provider_and_costs_nothing(tmp_path, published):
    path, file = published
    header = json.loads(file.read_text().splitlines()[0])
    assert (header["format"], header["recording"]) == ("m3i-ledger-1", "paper")
    assert header["price_source"].startswith("litellm")
    reader = tmp_path / "reader.sqlite"
    done = import_(reader, file)
    assert (done.read, done.added, done.recording) == (5, 5, "paper")
    again = import_(reader, file)
    assert (again.read, again.added, again.recording) == (5, 0, "")
    originals = ask(path, None, *REQUESTS, mode=LedgerMode.replay)
    assert ask(reader, None, *REQUESTS, mode=LedgerMode.replay) == originals
    with pytest.raises(TooLong, match="it is too long"):
        ask(reader, None, request("long"), mode=LedgerMode.replay)
    with contextlib.closing(ledger_at(reader)) as ledger:
        assert ledger.recording == "paper"
        assert ledger.tally().spent_in_account_usd == 0
    second = tmp_path / "again.jsonl"
    export(reader, second)
    assert second.read_text() == file.read_text()


def test_what_a_file_calls_its_recording_cannot_steer_the_terminal(tmp_path, published, capsys):
    _, file = published
    header, *answers = file.read_text().splitlines()
    hostile = {**json.loads(header), "recording": "\x1b[2Jpaper"}
    file.write_text("\n".join([json.dumps(hostile), *answers]) + "\n")
    ledger_command(["import", str(file), "--path", str(tmp_path / "reader.sqlite")])
    out = capsys.readouterr().out
    assert "current recording: ?[2Jpaper" in out
    assert "\x1b" not in out


def test_an_import_never_replaces_an_answer(tmp_path, published):
    _, file = published
    mine = tmp_path / "mine.sqlite"
    own = ScriptedProvider(lambda req, attempt: echo(req, text="my own"))
    ask(mine, own, REQUESTS[0], mode=LedgerMode.record, recording="paper")
    assert import_(mine, file).added == 4
    assert ask(mine, None, REQUESTS[0], mode=LedgerMode.replay)[0].reply.text == "my own"


def test_a_ledger_with_a_recording_of_its_own_keeps_it(tmp_path, published):
    _, file = published
    mine = tmp_path / "mine.sqlite"
    own = ScriptedProvider(lambda req, attempt: echo(req, text="my own"))
    ask(mine, own, REQUESTS[0], mode=LedgerMode.record, recording="mine")
    assert import_(mine, file).recording == ""
    assert ask(mine, None, REQUESTS[0], mode=LedgerMode.replay)[0].reply.text == "my own"
    theirs = ask(mine, None, REQUESTS[0], mode=LedgerMode.replay, recording="paper")
    assert theirs[0].reply.text == "answer to 1"


def change(number, edit):
    """An edit of one line of the file, from 1."""

    def apply(file):
        lines = file.read_text().splitlines()
        lines[number - 1] = edit(lines[number - 1])
        file.write_text("\n".join(lines) + "\n")

    return apply


def fields(edit):
    def apply(line):
        content = json.loads(line)
        edit(content)
        return json.dumps(content)

    return apply


BROKEN = {
    "a request that was changed": (change(3, fields(lambda c: c["request"].update(model="other"))), "line 3.*its key"),
    "a number that was retyped": (change(3, fields(lambda c: c["request"].update(temperature=0.0))), "line 3.*its key"),
    "no JSON": (change(4, lambda line: line[:-9]), "line 4"),
    "not a number": (change(4, lambda line: line.replace('"cost_usd": 0', '"cost_usd": NaN, "x": 0')), "line 4: NaN"),
    "a negative price": (change(2, fields(lambda c: c.update(cost_usd=-1))), "line 2: cost_usd"),
    "a field too many": (change(2, fields(lambda c: c.update(note="x"))), "line 2: note"),
    "a missing field": (change(2, fields(lambda c: c.pop("request"))), "line 2: request"),
    "text that is none": (change(2, fields(lambda c: c["response"].update(text=7))), r"line 2: response"),
    "another outcome": (change(2, fields(lambda c: c.update(outcome="too_long"))), "line 2: outcome"),
    "a future request": (
        change(2, fields(lambda c: c["request"].update(format=99))),
        "line 2:.*format 99",
    ),
    "another file": (change(1, lambda line: '{"hello": 1}'), "line 1"),
    "a deep hole": (change(5, lambda line: "[" * 100_000), "line 5"),
    "nothing": (lambda file: file.write_text(""), "is empty"),
    "other bytes": (lambda file: file.write_bytes(b"\xff\xfe\x00"), "line 1"),
}


@pytest.mark.parametrize(("damage", "words"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_was_changed_is_refused_whole_and_its_line_named(tmp_path, published, damage, words):
    _, file = published
    damage(file)
    reader = tmp_path / "reader.sqlite"
    with pytest.raises(InputError, match=rf"answers\.jsonl.*{words}"):
        import_(reader, file)
    if reader.exists():
        assert summary(reader) == []


def test_an_export_takes_only_what_is_asked_for_and_replaces_the_file_whole(tmp_path, published):
    path, file = published
    ask(path, ScriptedProvider(), request("x", model="other-model"), recording="", budget_usd=None)
    assert export(path, file, model="other-model") == 1
    assert export(path, file, recording="nobody") == 0
    assert export(path, file, provider="scripted", account="default") == 6
    with pytest.raises(StoreError, match="cannot write"):
        export(path, tmp_path / "answers.jsonl" / "x.jsonl")
    assert sorted(p.name for p in tmp_path.glob("*.part")) == []
    with pytest.raises(StoreError, match="there is no ledger at"):
        export(tmp_path / "none.sqlite", file)
    assert not (tmp_path / "none.sqlite").exists()


def test_show_counts_answers_money_and_faults(tmp_path, capsys):
    path = tmp_path / "ledger.sqlite"
    worst = estimate(request("x"), price_of("scripted", "test-model", PRICES)).usd_at_most

    def script(req, attempt):
        if attempt == 1 and req.replicate == 0:
            raise Transient("the connection broke", maybe_billed=True)
        if req.replicate == 9:
            raise AccountError("401")
        return echo(req)

    ask(path, ScriptedProvider(script), request("a"), request("b", replicate=1), account="mine")
    with pytest.raises(AccountError):
        ask(path, ScriptedProvider(script), request("b", replicate=9), account="mine")
    (row,) = summary(path)
    assert row["answers"] == 2
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (200, 100, pytest.approx(2 * COST))
    assert row["uncertain_usd"] == pytest.approx(worst)
    assert row["failed"] == {"account": 1, "connection": 1}
    ledger_command(["show", "--path", str(path)])
    out = " ".join(capsys.readouterr().out.split())
    assert "failed attempts, mine scripted test-model: account x 1, connection x 1" in out
    assert "$0.0003 paid; prices now: litellm" in out
    assert "may have been billed" in out


def test_the_words_of_the_command(tmp_path, published, capsys):
    path, _ = published
    out, reader = tmp_path / "out.jsonl", tmp_path / "reader.sqlite"
    ledger_command(["export", str(out), "--path", str(path)])
    ledger_command(["import", str(out), "--path", str(reader)])
    printed = capsys.readouterr().out
    assert "5 answers written" in printed
    assert "5 answers added" in printed
    assert f"ledger.mode=replay ledger.path={reader}" in printed
    for arguments, words in {
        (): "usage",
        ("shw",): "did you mean 'show'",
        ("export",): "usage",
        ("show", "--where", "x"): "usage",
        ("show", "--path", str(tmp_path / "none")): "there is no ledger",
        ("import", str(tmp_path / "none"), "--path", str(reader)): "cannot read",
    }.items():
        with pytest.raises(M3IError, match=words):
            ledger_command(list(arguments))


def test_imported_answers_do_not_use_up_a_budget(tmp_path, published):
    _, file = published
    reader = tmp_path / "reader.sqlite"
    import_(reader, file)
    with pytest.raises(BudgetError):
        ask(reader, ScriptedProvider(), request("new"), budget_usd=0.0)
    worst = estimate(request("new"), price_of("scripted", "test-model", PRICES)).usd_at_most
    ask(reader, ScriptedProvider(), request("new"), budget_usd=worst)
    with contextlib.closing(sqlite3.connect(reader)) as connection:
        assert connection.execute("SELECT count(*) FROM answers WHERE imported").fetchone() == (5,)


def altered(file, **changes):
    """The exported file with its second line changed."""
    lines = file.read_text().splitlines()
    return "\n".join([lines[0], json.dumps({**json.loads(lines[1]), **changes}), *lines[2:]])


@pytest.mark.parametrize(
    "changes",
    [
        {"recording": "\ud800"},
        {"made_at": "\udfff"},
        {"cost_usd": 10**400},
        {"latency_s": 10**400},
        {"latency_s": -1.0},
        {"latency_s": "ENDLESS"},
        {"latency_s": 10**30 * 0.5, "response": "DEEP"},
    ],
)
def test_a_line_that_no_ledger_can_hold_is_named_and_nothing_is_taken(tmp_path, published, changes):
    _, file = published
    response = json.loads(file.read_text().splitlines()[1])["response"]
    if changes.get("response") == "DEEP":
        deep = []
        for _ in range(900):
            deep = [deep]
        changes = {**changes, "response": {**response, "raw": {"a": deep}}}
    hostile = tmp_path / "hostile.jsonl"
    hostile.write_text(altered(file, **changes).replace('"ENDLESS"', "1e999"))
    with pytest.raises(InputError, match=r"hostile\.jsonl line 2"):
        import_(tmp_path / "reader.sqlite", hostile)
    with contextlib.closing(ledger_at(tmp_path / "reader.sqlite")) as ledger:
        assert not ledger.known([r.key for r in REQUESTS])


def test_a_header_with_half_a_surrogate_pair_is_named(tmp_path, published):
    _, file = published
    lines = file.read_text().splitlines()
    header = {**json.loads(lines[0]), "recording": "\ud800"}
    hostile = tmp_path / "hostile.jsonl"
    hostile.write_text("\n".join([json.dumps(header), *lines[1:]]))
    with pytest.raises(InputError, match=r"hostile\.jsonl line 1"):
        import_(tmp_path / "reader.sqlite", hostile)


def test_an_export_does_not_overwrite_a_ledger(tmp_path, published):
    path, _ = published
    before = path.read_bytes()
    other = tmp_path / "other.sqlite"
    ask(other, ScriptedProvider(), REQUESTS[0])
    for out in (path, other):
        with pytest.raises(InputError, match="is a database"):
            export(path, out)
    assert path.read_bytes() == before
    assert summary(other)
