"""Observers and judges behind a provider's API: keys from the environment, calls through the ledger."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from m3i.component import option, require
from m3i.errors import ConfigError
from m3i.interfaces import Tick
from m3i.ledger.request import Provider
from m3i.llm.panel import Ask, Asked, CallMode, ask_all
from m3i.llm.text_model import TextModel

if TYPE_CHECKING:
    from m3i.ledger import Ledger

__all__ = ["CallMode", "RemoteModel"]

T = TypeVar("T")


@dataclass(kw_only=True)
class RemoteModel(TextModel):
    """Mixin, listed before `LLMObserver` or `LLMJudge`: `class Claude(RemoteModel, LLMObserver)`."""

    uses_ledger: ClassVar[bool] = True
    provider_name: ClassVar[str]
    """`Provider.name` of the client."""
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that may hold the key; one of them is enough. Empty if no key is needed."""
    has_batches: ClassVar[bool] = False
    """Whether the client is a BatchProvider."""

    mode: CallMode = option(CallMode.each, result_free=True)
    """`each`: one call per item, sent right away. `batch`: the provider's batch API, cheaper and done within a day."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        self.mode = CallMode(self.mode)
        accepted = f"each: {self.provider_name} has no batch API here"
        require(self.has_batches or self.mode is CallMode.each, f"{self.group}.mode", self.mode.value, accepted)

    @abstractmethod
    def provider(self) -> Provider:
        """Returns a client for one event loop. Making it needs neither the key nor the SDK; the first `send` does."""

    def keys(self) -> tuple[str, ...]:
        """Returns `key_variables`; overridden if they depend on the options."""
        return self.key_variables

    def require_key(self, environ: Mapping[str, str] | None = None) -> None:
        """Raises ConfigError if a key is needed and none is in the environment."""
        environ = os.environ if environ is None else environ
        names = self.keys()
        if not names or any(environ.get(name, "").strip() for name in names):
            return
        without = (
            "observer=checker or observer=surprisal (no model), observer=llamacpp (a local GGUF)"
            if self.group == "observer"
            else "judge=verifier (no model), judge=llamacpp (a local GGUF)"
        )
        raise ConfigError(
            f"{self.group} with model {self.model!r} needs a key for {self.provider_name}: set {' or '.join(names)} in "
            f"the environment (keys are read only from there, never from a config). Without a key you can use "
            f"{without}, ledger.mode=replay with a recorded ledger, and `m3i cost ...`, which estimates what the run "
            f"would cost"
        )

    async def answers(self, asks: Sequence[Ask[T]], *, ledger: Ledger, purpose: str, tick: Tick) -> Asked[T]:
        """Obtains the answers through the ledger; see m3i.llm.panel."""
        provider = self.provider()
        try:
            return await ask_all(ledger, provider, asks, mode=self.mode, purpose=purpose, facts=self.facts(), tick=tick)
        finally:
            await provider.aclose()
