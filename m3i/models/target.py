"""A loaded target: the model, its tokenizer, and the few facts about its modules that stages share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m3i.artifacts import TargetInfo
from m3i.errors import ConfigError


@dataclass
class LoadedTarget:
    """A transformers causal language model in evaluation mode."""

    info: TargetInfo
    model: Any
    """`transformers.PreTrainedModel`, on its device, in its dtype, gradients off."""
    tokenizer: Any
    """`transformers.PreTrainedTokenizerBase`."""
    stop_ids: tuple[int, ...]
    """Ids that end a completion."""
    chat: bool = False
    """Whether prompts go through the tokenizer's chat template."""
    system_prompt: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    """Worked examples (prompt, completion), shown as earlier turns of the chat before every prompt."""

    def encode_prompt(self, prompt: str) -> list[int]:
        """Returns the ids of one problem's prompt as the model sees it, including template and BOS."""
        if not self.chat:
            return list(self.tokenizer(prompt)["input_ids"])
        messages = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        for question, answer in self.examples:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": prompt})
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_completion(self, text: str) -> list[int]:
        """Returns the ids of a completion's text, without special tokens or end-of-sequence."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: list[int] | tuple[int, ...]) -> str:
        """Returns the text of completion ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @property
    def layers(self) -> Any:
        """The decoder layers, an `nn.ModuleList`."""
        return self._inner("layers")

    @property
    def final_norm(self) -> Any:
        """The norm between the last layer and the unembedding."""
        return self._inner("norm")

    @property
    def unembedding(self) -> Any:
        """The module that maps the final normalised state to logits."""
        return self.model.get_output_embeddings()

    def _inner(self, name: str) -> Any:
        base = self.model.model if self.info.architecture.endswith("ForCausalLM") else self.model
        try:
            return getattr(base, name)
        except AttributeError:
            raise ConfigError(
                f"{self.info.architecture} has no 'model.{name}'; only targets laid out like Llama or DeepSeek-V2 are "
                f"supported (model.layers, model.norm, lm_head)"
            ) from None
