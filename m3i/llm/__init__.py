"""Observers and judges that are language models: prompts, replies and the panel that asks.

| module | holds |
|---|---|
| `request` | what a provider is asked and what it answers, in no provider's words; the errors a call can end in |
| `fields` | prompt files with fenced data fields: nothing a model wrote leaves its field |
| `digest` | a trace with numbered steps, and its telemetry as tables of layers and steps |
| `schema` | JSON schemas that every provider takes, and strict reading of replies |
| `audit` | the audit's taxonomy of failures, prompt and reply, and replies to findings |
| `verdict` | the same for pairwise judgment, and replies to ballots |
| `panel` | asks for many items: the first call alone (it warms the provider's cache), one repair turn, counts |
| `calls` | the calls of a panel at once, and a stop that loses none under way |
| `text_model` | options that observers and judges share, and the seam: how text is obtained |
| `observer`, `judge` | the base classes of components |
| `remote` | mixed in for a model behind an API: key, client, ledger, batches |
| `models` | default model ids, and which family a model id belongs to |
| `sdk` | what clients built on an SDK share: limits of time, errors of a connection, quiet loggers |
| `retry_after` | how long a server asks to wait, from its headers |
"""
