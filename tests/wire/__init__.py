"""A local server that speaks the wire formats of Anthropic, Gemini and OpenAI, for tests with the real SDK clients.

Use:

```python
from tests.wire import WireServer, faults

with WireServer(mind="honest") as server:
    for name, value in server.environment().items():   # base URLs and keys of every SDK
        monkeypatch.setenv(name, value)
    server.script(faults.rate_limited(0.1), faults.ok(), faults.closed())  # what becomes of the next requests, in order
    ...                                                # litellm: api_base=server.openai_url
    assert server.repeated == 0                        # no body was answered in full twice
    assert server.max_in_flight <= 4
    assert server.requests[0].body["model"] == "gpt-5"
```

| attribute | holds |
|---|---|
| `url`, `openai_url` | the base of Anthropic and Gemini; the `/v1` base that OpenAI clients want |
| `key` | the only API key that is accepted |
| `models` | shell patterns of accepted model ids; anything else is the provider's own 404 |
| `mind` | who answers; see `tests.wire.minds` |
| `requests` | every request: path, headers, parsed body, status, whether the answer was delivered in full |
| `paid`, `repeated` | answers delivered in full by canonical body; how many of them were for a body already paid |
| `max_in_flight` | most questions open at the same time; one that its client gave up counts until its answer is due |
| `delay_s` | how long every answer takes |
| `batches_end` | False keeps batches working until it is set |
| `script_batch(...)` | what becomes of the next requests inside batches |
| `release()` | lets go the requests that `faults.hold()` holds |
| `invalid`, `unspent` | what was wrong with refused requests; scripted outcomes that no request has met yet |

A request that the SDK's own types do not validate, unknown keys included, is answered with 400. Answers follow the
request's JSON schema and text. As a program: `python -m tests.wire --port 0 --print-port`.
"""

from tests.wire import faults
from tests.wire.server import Seen, WireServer

__all__ = ["Seen", "WireServer", "faults"]
