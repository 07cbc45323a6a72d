"""What observers and judges that ask a language model share: options, prompt, and the method that obtains text.

That method is `TextModel.answers`. It is given items, each with a request, a prompt in parts and a parser, and returns
values. `RemoteModel` sends the requests through the ledger. A component that runs a model locally overrides `answers`:
it tokenises `Ask.prompt`, constrains the output to `Ask.request.schema`, calls `Ask.read` on the text, and uses no
ledger. Prompts, schemas, parsing and counting are the same for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from m3i.artifacts import CallFacts
from m3i.component import Component, option, require
from m3i.errors import ConfigError
from m3i.interfaces import Tick
from m3i.ledger.request import ModelRequest
from m3i.llm.models import family_of
from m3i.llm.panel import Ask, Asked
from m3i.llm.prompt_fields import Prompt, Slots, Template, read_template

if TYPE_CHECKING:
    from m3i.ledger import Ledger

T = TypeVar("T")


@dataclass(kw_only=True)
class TextModel(Component, ABC):
    """Base of `LLMObserver` and `LLMJudge`."""

    reads_with_model: ClassVar[bool] = True
    group: ClassVar[str]
    """`observer` or `judge`, for messages."""
    builtin_prompt: ClassVar[str]
    """File name of the built-in prompt in m3i/llm/prompts."""
    layout: ClassVar[Mapping[str, Slots]]
    provider_name: ClassVar[str] = "local"
    """Part of every request's key."""

    model: str
    """Model id, as the provider spells it."""
    prompt_file: str | None = option(None, result_free=True)
    """Text file that replaces the built-in prompt; see docs/audit.md for its sections and placeholders. Only its
    content matters (`prompt_sha256`), not its path."""
    prompt_sha256: str = ""
    """SHA-256 of the prompt file in use. If given, the file must match; if empty, it is computed from the file."""
    max_tokens: int = 8192
    """Maximum tokens of a reply, including thinking if the provider counts it; a reply cut there counts as missing."""
    temperature: float | None = None
    """Sampling temperature; null leaves it to the provider (some models refuse any other)."""

    def __post_init__(self) -> None:
        """Checks the values and the prompt file."""
        require(bool(self.model.strip()), f"{self.group}.model", self.model, "a model id")
        require(self.max_tokens >= 64, f"{self.group}.max_tokens", self.max_tokens, "64 or more")
        require(
            self.temperature is None or 0 <= self.temperature <= 2,
            f"{self.group}.temperature",
            self.temperature,
            "null or a number from 0 to 2",
        )
        _, found = self._read_prompt()
        if self.prompt_sha256 and self.prompt_sha256.lower() != found:
            name = self.prompt_file or f"the built-in {self.builtin_prompt}"
            raise ConfigError(f"{self.group}.prompt_sha256 = {self.prompt_sha256!r}, but {name} has {found}")
        self.prompt_sha256 = found

    def _read_prompt(self) -> tuple[Template, str]:
        return read_template(
            self.prompt_file, builtin=self.builtin_prompt, layout=self.layout, option=f"{self.group}.prompt_file"
        )

    def template(self) -> Template:
        """Returns the prompt file in use. Raises ConfigError if it has changed since the component was made."""
        template, found = self._read_prompt()
        if found != self.prompt_sha256:
            raise ConfigError(f"{self.group}.prompt_file = {self.prompt_file!r}: edited during the run; start it again")
        return template

    def family(self) -> str:
        """Returns the model's family, e.g. `claude`."""
        return family_of(self.model)

    def thinking_tokens(self) -> int:
        """Returns the expected thinking tokens per reply, for cost estimates."""
        return 0

    def request_options(self) -> dict[str, Any]:
        """Returns further options that the client sends (`ModelRequest.options`), as JSON values."""
        return {}

    def facts(self) -> CallFacts:
        """Returns provider, model, family and prompt, without counts."""
        return CallFacts(
            provider=self.provider_name,
            model=self.model,
            family=self.family(),
            prompt=self.template().title,
            prompt_sha256=self.prompt_sha256,
        )

    def make_request(self, prompt: Prompt, schema: Mapping[str, Any], replicate: int) -> ModelRequest:
        """Returns a request with this component's options."""
        return ModelRequest(
            provider=self.provider_name,
            model=self.model,
            system=prompt.system_blocks(),
            messages=prompt.messages(),
            schema=schema,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            options=self.request_options(),
            replicate=replicate,
        )

    @abstractmethod
    async def answers(self, asks: Sequence[Ask[T]], *, ledger: Ledger, purpose: str, tick: Tick) -> Asked[T]:
        """Returns a value for every item, or the reason why there is none; see the top of this module."""
