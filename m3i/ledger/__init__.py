"""The record of every remote call: what was asked, what was answered, what it cost.

| module | holds |
|---|---|
| `ledger` | `Ledger`: `ask`, `ask_batch`, `tally`; a short account of how it works |
| `request` | what a provider is asked and what it answers, in provider-neutral types; the errors a call can end in |
| `outcomes` | an answer, and the errors that the ledger itself raises |
| `context` | what single calls and batches share: settings, the database thread, prices |
| `single_call` | one call: reserve, send, record; after a failure, retry until the deadline |
| `batches` | many calls at once: submit, poll, collect, and resume without submitting twice |
| `limiter` | how many calls are in flight, adapting to the provider's 429s |
| `faults` | the kind of a failed attempt, and how long to wait before the next |
| `database` | the SQLite file: its tables, its transactions, its errors explained |
| `answers` | writes, finds and reads the recorded answers |
| `calls`, `batch_rows` | the database work around a call, and around a batch |
| `process_locks` | file locks that tell which processes are alive |
| `price_table` | litellm's price table and the user's own prices |
| `prices` | what a call costs; one estimator serves the dry run and the budget |
| `tally` | totals over one process's calls |
| `parse_request` | rebuilds a request from the content that its key is a hash of |
| `jsonl` | writes a ledger as JSONL and reads it back |
| `show` | the contents of a ledger, as rows |
| `secrets` | removes keys from every text before it is written or printed |
"""

from m3i.ledger.ledger import Answer, BudgetError, Ledger, OutageError, ReplayError, Tally

__all__ = ["Answer", "BudgetError", "Ledger", "OutageError", "ReplayError", "Tally"]
