"""The tokenizer of the tiny target: byte-level BPE in GPT-2's style with no merges, so one character is one token."""

from pathlib import Path

from .architecture import BOS_ID, CHARACTERS, SPECIAL_TOKENS


def build_vocabulary() -> dict[str, int]:
    """Token → id, in the byte-level alphabet (a space is `Ġ`, a newline is `Ċ`); special tokens come first."""
    from tokenizers.pre_tokenizers import ByteLevel

    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    tokens = [byte_level.pre_tokenize_str(character)[0][0] for character in CHARACTERS]
    return {token: place for place, token in enumerate((*SPECIAL_TOKENS, *tokens))}


def encode_characters(text: str) -> list[int]:
    """Ids of a text of known characters, without `<bos>`: the same as the saved tokenizer's, but faster.

    Raises:
        ValueError: If a character has no token of its own.
    """
    try:
        return [_ID_OF_CHARACTER[character] for character in text]
    except KeyError as error:
        raise ValueError(f"no token for character {error.args[0]!r}; known: newline and printable ASCII") from None


_ID_OF_CHARACTER = {character: place for place, character in enumerate(CHARACTERS, start=len(SPECIAL_TOKENS))}


def save_tokenizer(folder: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` so that `AutoTokenizer` loads them from `folder`.

    A prompt is encoded with `<bos>` in front; a character outside the vocabulary becomes `<unk>`, once per byte.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pad, bos, eos, unk = SPECIAL_TOKENS
    tokenizer = Tokenizer(models.BPE(vocab=build_vocabulary(), merges=[], unk_token=unk))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, BOS_ID)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
