"""The server: one port, three dialects, scripted faults, and a record of what was asked and delivered."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.wire.dialect import Dialect, Refusal, Result
from tests.wire.exchange import Asked, PromptCache, Said, cut
from tests.wire.faults import KEY, Fault, ok
from tests.wire.minds import say

VERSION = re.compile(r"^/v1(beta)?")
MODELS = ("claude-*", "gemini-*", "gpt-*", "o3*", "o4*")


@dataclass(kw_only=True)
class Seen:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    dialect: str
    status: int = 0
    """Of the answer; 0 while none was begun."""
    invalid: str = ""
    """What the SDK's own types say against the body."""
    delivered: bool = False
    """The whole answer was written to the connection."""
    at_s: float = field(default_factory=time.monotonic)


class WireServer:
    """Runs from `with` until its end; see the package's docstring."""

    def __init__(
        self,
        *,
        mind: str | Mapping[str, str] = "honest",
        models: tuple[str, ...] = MODELS,
        key: str = "wire-key-5c0f9d1e7a3b",
        port: int = 0,
        cache_minimum_tokens: int = 16,
    ) -> None:
        self.mind, self.models, self.key = mind, models, key
        self.cache = PromptCache(cache_minimum_tokens)
        self.requests: list[Seen] = []
        self.paid: Counter[str] = Counter()
        self.max_in_flight = 0
        self._open: set[int] = set()
        self.delay_s = 0.0
        self.batches_end = True
        self.lock = threading.RLock()
        self._script: deque[Fault] = deque()
        self._batch_script: deque[str] = deque()
        self._released = threading.Event()
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.wire = self
        self._dialects = load_dialects(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Base of Anthropic's and Gemini's clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """Base of OpenAI's clients, litellm's `api_base`."""
        return f"{self.url}/v1"

    def environment(self) -> dict[str, str]:
        """What points every SDK here."""
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": self.key,
            "GOOGLE_GEMINI_BASE_URL": self.url,
            "GEMINI_API_KEY": self.key,
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_KEY": self.key,
        }

    @property
    def in_flight(self) -> int:
        """Questions that have no answer yet."""
        return len(self._open)

    @property
    def repeated(self) -> int:
        """Answers delivered in full for a body that had already been answered in full."""
        return sum(self.paid.values()) - len(self.paid)

    @property
    def invalid(self) -> list[str]:
        """What was wrong with every request that an SDK's types do not validate."""
        return [seen.invalid for seen in self.requests if seen.invalid]

    def script(self, *outcomes: Fault) -> None:
        """What becomes of the next requests, one each, in order of arrival; ordinary answers after that."""
        with self.lock:
            self._script.extend(outcomes)

    def unscript(self) -> None:
        """Forgets the scripted outcomes that no request has met yet."""
        with self.lock:
            self._script.clear()

    def script_batch(self, *outcomes: str) -> None:
        """Of the next requests inside batches: `succeeded`, `errored`, `expired`, `canceled` or `too_long`."""
        with self.lock:
            self._batch_script.extend(outcomes)

    @property
    def unspent(self) -> int:
        """Scripted outcomes that no request has met yet."""
        return len(self._script)

    def release(self) -> None:
        """Lets the requests go on that `hold` holds now."""
        with self.lock:
            self._released.set()
            self._released = threading.Event()

    # -- for the dialects --

    def knows(self, model: str) -> bool:
        """Whether the model id exists."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def say(self, asked: Asked, mind: str = "") -> Said:
        """The answer to a question."""
        if not mind:
            minds = {"*": self.mind} if isinstance(self.mind, str) else self.mind
            mind = next((m for pattern, m in minds.items() if fnmatchcase(asked.model, pattern)), "honest")
        return cut(say(mind, asked), asked.max_tokens)

    def next_batch_outcome(self) -> str:
        """The scripted outcome of the next request inside a batch."""
        with self.lock:
            return self._batch_script.popleft() if self._batch_script else "succeeded"

    def pay(self, path: str, body: Any) -> None:
        """Counts an answer to a body as delivered."""
        with self.lock:
            self.paid[f"{VERSION.sub('', path)} {json.dumps(body, sort_keys=True)}"] += 1

    # -- for the handler --

    def dialect_of(self, path: str) -> Dialect | None:
        """Who speaks on a path."""
        return next((d for d in self._dialects if d.speaks(path)), None)

    def next_outcome(self) -> Fault:
        """The scripted outcome of the request that has just come."""
        with self.lock:
            return self._script.popleft() if self._script else ok()

    def wait_for_release(self) -> None:
        """Until `release`."""
        with self.lock:
            released = self._released
        released.wait()

    def begin(self, seen: Seen) -> None:
        """Counts a question among those in flight."""
        with self.lock:
            self._open.add(id(seen))
            self.max_in_flight = max(self.max_in_flight, len(self._open))

    def end(self, seen: Seen) -> None:
        """The client can have its answer from here on, and may ask again at once."""
        with self.lock:
            self._open.discard(id(seen))


def load_dialects(server: WireServer) -> list[Dialect]:
    """All dialects."""
    from tests.wire.dialect_anthropic import AnthropicDialect
    from tests.wire.dialect_gemini import GeminiDialect
    from tests.wire.dialect_openai import OpenAIDialect

    return [AnthropicDialect(server), OpenAIDialect(server), GeminiDialect(server)]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    wire: WireServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's fault; anything else is shown."""
        import sys

        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        self.serve(None)

    def do_DELETE(self) -> None:
        self.serve(None)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw.decode("utf-8", "replace")
        self.serve(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing goes to the terminal."""

    def serve(self, body: Any) -> None:
        """One request."""
        wire = self.server.wire
        headers = {name.lower(): value for name, value in self.headers.items()}
        dialect = wire.dialect_of(self.path)
        name = dialect.name if dialect else ""
        seen = Seen(method=self.command, path=self.path, headers=headers, body=body, dialect=name)
        with wire.lock:
            wire.requests.append(seen)
            outcome = wire.next_outcome()
        if dialect is None:
            return self.write(seen, Result(404, {"error": {"message": f"no such path: {self.path}"}}), ok(), False)
        asks = dialect.asks(self.command, self.path)
        if asks:
            wire.begin(seen)
        try:
            if outcome.kind == "hold":
                wire.wait_for_release()
            if wire.delay_s and asks:
                time.sleep(wire.delay_s)
            result = self.result(dialect, seen, outcome)
            self.write(seen, result, outcome, asks and result.status == 200)
        finally:
            wire.end(seen)

    def result(self, dialect: Dialect, seen: Seen, outcome: Fault) -> Result:
        """The answer or the error, before anything happens to it on the way."""
        key = dialect.key(seen.headers)
        try:
            if key != self.server.wire.key:
                raise dialect.wrong_key(key)
            dialect.check(seen)
            if outcome.kind == "status":
                message = outcome.message.replace(KEY, key)
                raise dialect.scripted(outcome, message)
            return dialect.answer(seen, outcome.mind)
        except Refusal as refusal:
            seen.invalid = refusal.invalid
            return Result(refusal.status, dialect.error_body(refusal), refusal.headers)

    def write(self, seen: Seen, result: Result, outcome: Fault, paid: bool) -> None:
        """Sends an answer, as far as the outcome lets it; what is `paid` counts once the last byte goes out."""
        seen.status = result.status
        content = result.content()
        if outcome.kind == "malformed":
            content = b"<html>" + content[:40] + b"</html>"
        elif outcome.kind == "truncated":
            content = content[: len(content) // 2]
        headers = {"date": formatdate(usegmt=True), "content-type": result.content_type, **result.headers}
        headers["content-length"] = str(len(content))
        lines = [f"HTTP/1.1 {result.status} {self.responses.get(result.status, ('Error',))[0]}"]
        head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode("latin-1")
        if outcome.kind == "closed":
            self.wfile.write(b"" if outcome.before else head + content[: len(content) // 2])
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        pieces = [content[i : i + 1] for i in range(len(content))] if outcome.kind == "drip" else [content]
        self.wfile.write(head)
        for piece in pieces[:-1]:
            self.wfile.write(piece)
            time.sleep(outcome.interval_s)
        self.wfile.write(pieces[-1][:-1])
        self.refuse_the_departed()
        # Counted before the last byte: the client may act on the answer before this thread runs again.
        whole = outcome.kind not in ("malformed", "truncated")
        self.server.wire.end(seen)
        if paid and whole:
            self.server.wire.pay(seen.path, seen.body)
        seen.delivered = whole
        self.wfile.write(pieces[-1][-1:])

    def refuse_the_departed(self) -> None:
        """Raises ConnectionError if the client has hung up: what is written now reaches nobody."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionAbortedError("the client has gone")
