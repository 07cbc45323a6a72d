"""Observers and judges that are language models: their prompts, their replies, and the panel that asks them.

| module | holds |
|---|---|
| `prompt_fields` | prompt files with fenced data fields: text written by a model cannot leave its field |
| `digest` | a trace with numbered steps, and its telemetry as tables of layers and steps |
| `schema` | JSON schemas that every provider accepts, and strict parsing of replies |
| `audit` | the audit's taxonomy of failures, its prompt, its reply format, and how a reply becomes findings |
| `verdict` | prompt and reply format of pairwise judging, and how replies become a ballot |
| `panel` | asks for many items: the first call alone (to warm the provider's cache), one repair turn, counts |
| `calls` | makes a panel's calls concurrently; stopping it loses no call that has been sent |
| `text_model` | options that observers and judges share, and the method through which they obtain text |
| `observer`, `judge` | the base classes of components |
| `remote` | mixin for a model behind an API: key, client, ledger, batches |
| `models` | default model ids, and which family a model id belongs to |
| `sdk` | what clients built on an SDK share: time limits, connection errors, quiet loggers |
| `retry_after` | how long a server asks to wait, from its headers |

Requests and replies in provider-neutral types, and the errors a call can end in, are in m3i.ledger.request.
"""
