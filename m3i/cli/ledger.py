"""`m3i ledger show | export | import | abandon`: reads and moves the record of remote calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from m3i.cli.arguments import Parser
from m3i.errors import M3IError, did_you_mean

USAGE = (
    "usage: m3i ledger show [--path FILE] | export OUT.jsonl [--path FILE] [--recording R] [--provider P] [--model M] "
    "[--account A] | import IN.jsonl [--path FILE] | abandon BATCH [--path FILE]"
)


def default_path() -> Path:
    """Returns the path of the default store's ledger."""
    return Path(platformdirs.user_cache_dir("m3i")) / "ledger.sqlite"


def ledger_command(arguments: list[str]) -> None:
    """m3i ledger show|export|import|abandon: shows what was asked and paid, and moves recordings to and from files."""
    word = arguments[0] if arguments else ""
    if word in ("-h", "--help"):
        print(USAGE)
        return
    if word not in WORDS:
        raise M3IError(f"'m3i ledger' has no command '{word}'{did_you_mean(word, WORDS)} {USAGE}")
    WORDS[word](arguments[1:])


def _parser() -> Parser:
    parser = Parser(prog="m3i ledger", usage=USAGE, add_help=False)
    parser.add_argument("--path", type=Path, default=default_path())
    return parser


def _show(arguments: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from m3i.ledger.prices import price_source
    from m3i.ledger.show import open_batches, summary

    path = _parser().parse_args(arguments).path
    rows, batches = summary(path), open_batches(path)
    console = Console(highlight=False, markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("account", "model"):
        table.add_column(head, overflow="fold")
    for head in ("answers", "input", "cached", "output", "cost $", "uncertain $"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in rows:
        if row["failed"]:
            failed = ", ".join(f"{kind} x {n}" for kind, n in row["failed"].items())
            console.print(f"failed attempts, {_plain(row['account'])} {_model(row)}: {_plain(failed)}")
    total = sum(row["cost_usd"] for row in rows if row["account"] != "(imported)")
    console.print(f"\n{path}: ${total:.4f} paid; prices now: {price_source()}")
    if any(row["uncertain_usd"] for row in rows):
        console.print("uncertain: sent but never answered; at most this much may have been billed. It counts as spent.")
    for batch in batches:
        console.print(
            f"batch {_plain(batch['name'])} ({_model(batch)}, {batch['requests']} requests, at most "
            f"${batch['worst_usd']:.4f}): {batch['state']} since {_plain(batch['made_at'])}"
        )


def _cells(row: dict[str, Any]) -> list[str]:
    unpriced = f" + {row['unpriced']} unpriced" if row["unpriced"] else ""
    too_long = f" ({row['too_long']} too long)" if row["too_long"] else ""
    return [
        *(_plain(row["account"]), _model(row), f"{row['answers']:,}{too_long}"),
        *(f"{row['input_tokens']:,}", f"{row['cached_tokens']:,}", f"{row['output_tokens']:,}"),
        *(f"{row['cost_usd']:.4f}{unpriced}", f"{row['uncertain_usd']:.4f}"),
    ]


def _model(row: dict[str, Any]) -> str:
    return _plain(f"{row['provider']} {row['model']}")


def _plain(text: str) -> str:
    """Returns the text with control characters replaced, so that names from a file cannot control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _export(arguments: list[str]) -> None:
    from m3i.ledger.jsonl import export

    parser = _parser()
    parser.add_argument("out", type=Path)
    for name in ("recording", "provider", "model", "account"):
        parser.add_argument(f"--{name}", default="")
    given = parser.parse_args(arguments)
    n = export(
        given.path,
        given.out,
        recording=given.recording,
        provider=given.provider,
        model=given.model,
        account=given.account,
    )
    print(f"{n} answer{'' if n == 1 else 's'} written to {given.out}")


def _import(arguments: list[str]) -> None:
    from m3i.ledger.jsonl import import_

    parser = _parser()
    parser.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    done = import_(given.path, given.file)
    there = done.read - done.added
    print(f"{done.added} answers added to {given.path}" + (f"; {there} were already there" if there else ""))
    if done.recording:
        print(f"current recording: {_plain(done.recording)}")
    print(f"Repeat the run without keys: python -m m3i ... ledger.mode=replay ledger.path={given.path}")


def _abandon(arguments: list[str]) -> None:
    from m3i.ledger.batch_rows import abandon
    from m3i.ledger.database import Database

    parser = _parser()
    parser.add_argument("batch")
    given = parser.parse_args(arguments)
    db = Database(given.path, create=False)
    try:
        n = abandon(db, given.batch)
    finally:
        db.close()
    print(f"batch {given.batch} abandoned: its {n} requests can be sent again; their worst case counts as spent")


WORDS: dict[str, Callable[[list[str]], None]] = {
    "show": _show,
    "export": _export,
    "import": _import,
    "abandon": _abandon,
}
