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
    """Mixed in before `LLMObserver` or `LLMJudge`: `class Claude(RemoteModel, LLMObserver)`."""

    uses_ledger: ClassVar[bool] = True
    provider_name: ClassVar[str]
    """`Provider.name` of the client."""
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that may hold the key; one of them is enough. Empty: none is needed."""
    has_batches: ClassVar[bool] = False
    """The client is a BatchProvider."""

    mode: CallMode = option(CallMode.each, result_free=True)
    """`each`: one call an item, at once. `batch`: the provider's batch API, for less money and within a day."""

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        self.mode = CallMode(self.mode)
        accepted = f"each: {self.provider_name} has no batch API here"
        require(self.has_batches or self.mode is CallMode.each, f"{self.group}.mode", self.mode.value, accepted)

    @abstractmethod
    def provider(self) -> Provider:
        """A client for one event loop. Making it needs neither the key nor the SDK; the first `send` does."""

    def keys(self) -> tuple[str, ...]:
        """`key_variables`, or others where they depend on the options."""
        return self.key_variables

    def require_key(self, environ: Mapping[str, str] | None = None) -> None:
        """Refuses, with a ConfigError, to begin without a key in the environment."""
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
            f"{self.group} with model {self.model!r} needs a key of {self.provider_name}: set {' or '.join(names)} in "
            f"the environment (keys are read from there alone, never from a config). What works without one: "
            f"{without}, ledger.mode=replay with a recorded ledger, and `m3i cost ...`, which says what the run would "
            f"cost"
        )

    async def answers(self, asks: Sequence[Ask[T]], *, ledger: Ledger, purpose: str, tick: Tick) -> Asked[T]:
        """Through the ledger; see m3i.llm.panel."""
        provider = self.provider()
        try:
            return await ask_all(ledger, provider, asks, mode=self.mode, purpose=purpose, facts=self.facts(), tick=tick)
        finally:
            await provider.aclose()
