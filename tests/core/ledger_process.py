"""A process that asks through a ledger, for tests of several at once: `python ledger_process.py WHAT LEDGER LOG ...`.

Every call that the provider gets is a line in LOG, as a provider's bill would be.
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ledger_provider import BatchingProvider, ScriptedProvider, echo, ledger_at, request

from m3i.errors import M3IError
from m3i.ledger import BudgetError
from m3i.ledger.request import Usage


def logged(log, req):
    """One line, appended by one write."""
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {req.messages[0].text} {req.replicate}\n")


async def panel(ledger, log, *, n, delay_s):
    """Asks for n answers, each of which takes a while."""

    async def answer(req, attempt):
        logged(log, req)
        await asyncio.sleep(delay_s)
        return echo(req)

    provider = ScriptedProvider(answer)
    await asyncio.gather(*(ledger.ask(provider, request(i), purpose="panel") for i in range(n)))


async def spend(ledger, log, *, n, seed):
    """Asks until the budget is gone; every process asks for other things, which cost different amounts."""

    async def answer(req, attempt):
        share = (hash((seed, req.replicate)) % 100) / 100
        usage = Usage(input_tokens=20, output_tokens=int(share * req.max_tokens))
        with open(log, "a") as file:
            file.write(f"{(usage.input_tokens + usage.output_tokens) * 1e-6!r}\n")
        await asyncio.sleep(0.002)
        return echo(req, usage)

    provider = ScriptedProvider(answer)
    for i in range(n):
        try:
            await ledger.ask(provider, request(f"of {seed}", replicate=i), purpose="spend")
        except BudgetError:
            print("budget")
            return


async def batch(ledger, folder, *, n, polls):
    """Asks for a batch."""
    provider = BatchingProvider(Path(folder), lambda req, attempt: echo(req), polls=polls)
    requests = {str(i): request(i) for i in range(n)}
    provider.requests = {r.key: r for r in requests.values()}
    answers = await ledger.ask_batch(provider, requests, purpose="batch", tick=lambda done, total: None)
    print(len(answers), sum(a.reused for a in answers.values()))


async def main(what, path, log, *numbers):
    """Runs one of the above."""
    if what == "panel":
        n, delay_s = numbers
        ledger = ledger_at(path, concurrency=4)
        await panel(ledger, log, n=int(n), delay_s=float(delay_s))
    elif what == "spend":
        n, seed, budget = numbers
        ledger = ledger_at(path, budget_usd=float(budget))
        await spend(ledger, log, n=int(n), seed=int(seed))
    else:
        n, polls, poll_s = numbers
        ledger = ledger_at(path, batch_poll_s=float(poll_s))
        await batch(ledger, log, n=int(n), polls=int(polls))
    ledger.close()


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except M3IError as error:
        sys.exit(f"{type(error).__name__}: {error}")
