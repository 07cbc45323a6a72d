"""The record of every remote call: what was asked, what was answered, what it cost.

| module | holds |
|---|---|
| `ledger` | `Ledger`: `ask`, `ask_batch`, `tally`; how it works, in short |
| `outcomes` | an answer, and the errors that a call through the ledger ends in |
| `context` | what single calls and batches share: settings, the database's thread, prices |
| `sending` | one call: reserve, send, record, or fail and try again until the deadline |
| `batches` | many calls at once: submit, poll, collect, resume without submitting twice |
| `limiter` | how many calls are in flight, adapting to the provider's 429s |
| `faults` | the class of a failed attempt, and how long to wait after it |
| `database` | the SQLite file: tables, transactions, what can go wrong with it |
| `answers` | answers in the file: written, found, read |
| `calls`, `batch_rows` | what is read and written around a call, and around a batch |
| `owners` | which processes are alive, told by locks |
| `price_table` | litellm's price table and the user's own prices |
| `prices` | what a call costs; the one estimator, for the dry run and the budget |
| `tally` | what one process's calls came to |
| `content` | a request back from what its key is made of |
| `exchange` | a ledger as JSONL and back |
| `show` | what a ledger holds, as rows |
| `command` | `m3i ledger show`, `export`, `import`, `abandon` |
| `secrets` | takes keys out of every text on its way to disk or screen |
"""

from m3i.ledger.ledger import Answer, BudgetError, Ledger, OutageError, ReplayError, Tally

__all__ = ["Answer", "BudgetError", "Ledger", "OutageError", "ReplayError", "Tally"]
