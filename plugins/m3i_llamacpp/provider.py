"""A local model behind the same interface as a remote one, so that panels ask, repair and count alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from m3i import ConfigError
from m3i.ledger import Answer
from m3i.ledger.request import ModelRequest, Provider, Reply, Stop, TooLong, Usage
from m3i.llm.prompt_fields import Prompt

from .chat import ChatFormat, conversation, tokenized
from .grammar import grammar_of

if TYPE_CHECKING:
    from m3i.models.llamacpp.session import LlamaSession

T = TypeVar("T")


class Unrecorded:
    """Stands in for a ledger: a local model's replies cost nothing and are kept only in the store."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def ask(self, provider: Provider, request: ModelRequest, *, purpose: str) -> Answer:
        """Returns the reply; calls run one after another."""
        async with self._turn:
            reply = await provider.send(request, timeout_s=float("inf"))
        return Answer(reply=reply, cost_usd=0.0, reused=False)


@dataclass(kw_only=True)
class LlamaCppProvider:
    """Answers requests with one GGUF model; llama.cpp runs in its own process, started by the first request."""

    path: Path
    prompts: Mapping[str, Prompt]
    """Text of a request's first turn → the prompt it was made from."""
    limits: Mapping[str, int]
    """As in `grammar_of`."""
    chat_format: ChatFormat
    n_ctx: int
    threads: int
    seed: int
    name: str = "llamacpp"
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "llamacpp"), init=False)
    _session: LlamaSession | None = field(default=None, init=False)
    _says: str = field(default="", init=False)
    """The model's name in the file's metadata."""

    async def send(self, request: ModelRequest, *, timeout_s: float) -> Reply:
        """Returns one reply. Raises TooLong if prompt and reply exceed the context."""
        return await self._run(lambda: self._reply(request))

    async def aclose(self) -> None:
        """Ends the process once it has written its current reply."""
        await self._run(self._close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _open(self) -> LlamaSession:
        from m3i.models.llamacpp.session import LlamaSession

        if self._session is None:
            session = LlamaSession(self.path, n_ctx=self.n_ctx, n_threads=self.threads).__enter__()
            self._session = session
            self._says = session.metadata().get("general.name") or self.path.name
            if not session.end_ids:
                raise ConfigError(f"{self.path} names no token that ends a reply; convert it again with its tokenizer")
        return self._session

    def _reply(self, request: ModelRequest) -> Reply:
        from m3i.models.llamacpp.session import Sampling, sampling_seed

        session = self._open()
        first, *later = request.messages
        ids = tokenized(session, conversation(self.prompts[first.text], later, self.chat_format))
        if len(ids) + request.max_tokens > self.n_ctx:
            raise TooLong(f"{len(ids)} tokens and {request.max_tokens} for the reply exceed n_ctx={self.n_ctx}")
        assert request.schema is not None
        text = "\0".join(message.text for message in request.messages)
        generation = session.generate(
            ids,
            max_new_tokens=request.max_tokens,
            seed=sampling_seed(self.seed, f"{request.replicate}\0{text}"),
            stop_ids=session.end_ids,
            sampling=Sampling(temperature=request.temperature or 0.0),
            grammar=grammar_of(request.schema, self.limits),
            reuse_prefix=True,
        )
        return Reply(
            text=session.detokenize(generation.ids),
            stop=Stop.MAX_TOKENS if generation.truncated else Stop.END,
            usage=Usage(
                input_tokens=generation.n_evaluated,
                cache_read_tokens=len(ids) - generation.n_evaluated,
                output_tokens=len(generation.ids),
            ),
            model=self._says,
        )
