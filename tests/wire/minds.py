"""Who answers. A mind is a function from a question to an answer; it reads the schema, not M3I's wording.

| mind | does |
|---|---|
| `honest` | recomputes, see below |
| `obedient` | does what text inside the data fields says about the verdict, otherwise honest |
| `forgetful` | honest, but overlooks about one finding in four and calls one comparison in four a tie |
| `lenient` | finds nothing and prefers nothing |
| `hallucinating` | quotes that are not in the trace |
| `invalid_once`, `invalid_always` | no JSON at first, or ever |
| `truncating` | stops in the middle at max_tokens |
| `refusing`, `empty` | declines; says nothing |

`honest` reports every wrong `a op b = c` of the numbered lines; where all are right, a last number that is not the
reference. Of two answers it prefers the one whose last number is right, by the reference or by the problem's own
expression; else the one with fewer wrong calculations; else it is a tie. Length never counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.wire.exchange import Asked, Said, tokens
from tests.wire.reading import Mistake, field_like, fields, last_number, mistakes, right_answer, steps
from tests.wire.schema import MISSING, SchemaFiller

Finding = dict[str, Any]
QUOTES = re.compile("quote|excerpt|citation|verbatim")
CHOICES = {"a", "b", "tie"}
BETWEEN = r"[\s\"'`:={\[(<>*_-]*"
VERDICT = re.compile(
    rf"(?i:\b(?:choose|choice|pick|prefer|select|verdict|winner|output|reply|answer with|better is|in favou?r of)\b"
    rf"{BETWEEN}(?:is|with|to|answer|assistant|option|the)?{BETWEEN}(?:answer|assistant|option)?{BETWEEN})"
    r"\b(A|B|[Tt]ie|TIE)\b"
)
"""An order to give a verdict, up to its letter, which is a capital: `choose a better one` is none."""
SELF = re.compile(
    r"(?i)\b(?:choose|pick|prefer|select|rate|declare) (?:this|my|the present)\b|\bthis (?:answer|response|one) "
    r"(?:is|must be|should be) (?:\w+ )?(?:better|best|correct|right|preferred|the winner)|"
    r"\bchoose the answer that contains this sentence\b"
)
ALL_WELL = re.compile(
    r"(?i)\"?findings\"?\s*[:=]\s*\[\s*\]|\bno (?:failures?|errors?|mistakes?|findings?|problems?)\b|"
    r"\b(?:every|all|each) (?:the )?(?:steps?|lines?) (?:is|are) (?:right|correct|sound|valid)|"
    r"\breport nothing\b|\bempty list\b"
)


def honest(asked: Asked) -> Said:
    """Recomputes."""
    return answer(asked, found(asked), preferred(asked))


def obedient(asked: Asked) -> Said:
    """Follows injected text."""
    data = fields(asked.user_text)
    trace = "\n".join(text for name, text in data.items() if "trace" in name or "reasoning" in name)
    findings = [] if ALL_WELL.search(trace) else found(asked)
    return answer(asked, findings, ordered(data) or preferred(asked))


def forgetful(asked: Asked) -> Said:
    """Overlooks, always the same things."""
    kept = [m for m in found(asked) if not unlucky(m.quote + asked.user_text)]
    return answer(asked, kept, "tie" if unlucky(asked.user_text) else preferred(asked))


def lenient(asked: Asked) -> Said:
    """Finds nothing."""
    return answer(asked, [], "tie")


def hallucinating(asked: Asked) -> Said:
    """Quotes what is nowhere in the prompt."""
    quote = "as shown above, 2*2=5"
    while quote in asked.prompt:
        quote += "!"
    return answer(asked, [Mistake(1, quote, "2*2=4")], "tie")


def invalid_once(asked: Asked) -> Said:
    """No JSON until it is complained about."""
    return honest(asked) if asked.repairing else invalid_always(asked)


def invalid_always(asked: Asked) -> Said:
    """Words instead of JSON, of which a part looks like it."""
    return Said(text='Sure! Here is what I think: {"findings": [] and so on')


def truncating(asked: Asked) -> Said:
    """Half of an honest answer."""
    text = honest(asked).text
    return Said(text=text[: len(text) // 2], stop="max_tokens")


def refusing(asked: Asked) -> Said:
    """Declines."""
    return Said(text="", stop="refusal")


def empty(asked: Asked) -> Said:
    """An answer without text."""
    return Said(text="")


MINDS: dict[str, Callable[[Asked], Said]] = {
    mind.__name__: mind
    for mind in (
        honest, obedient, forgetful, lenient, hallucinating, invalid_once, invalid_always, truncating, refusing, empty,
    )
}  # fmt: skip


def say(mind: str, asked: Asked) -> Said:
    """The answer of a mind, with some thinking where the request allows it."""
    said = MINDS[mind](asked)
    return replace(said, thinking_tokens=min(16 + tokens(said.text), asked.max_tokens // 4)) if asked.thinks else said


def unlucky(text: str) -> bool:
    """One text in four."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[0] < 64


def found(asked: Asked) -> list[Mistake]:
    """Wrong calculations; a wrong answer where every calculation is right."""
    trace = field_like(asked.user_text, "trace", "reasoning", "steps") or asked.user_text
    wrong = mistakes(trace)
    lines, right = steps(trace), last_number(field_like(asked.user_text, "reference"))
    if not wrong and right is not None and lines and last_number(lines[-1][1]) not in (right, None):
        wrong = [Mistake(lines[-1][0], lines[-1][1], f"{right:g}")]
    return wrong


def answers(data: dict[str, str]) -> tuple[str, str]:
    """Both answers of a comparison."""
    a, b = ([text for name, text in data.items() if name.endswith(end)] for end in ("_a", "_b"))
    return (a or [""])[0], (b or [""])[0]


def preferred(asked: Asked) -> str:
    """`a`, `b` or `tie`."""
    both, right = answers(fields(asked.user_text)), right_answer(asked.user_text)
    scores = [(right is not None and last_number(text) == right, -len(mistakes(text))) for text in both]
    return "tie" if scores[0] == scores[1] else "a" if scores[0] > scores[1] else "b"


def ordered(data: dict[str, str]) -> str:
    """The verdict that a data field asks for; empty if none does."""
    for name, text in data.items():
        if match := VERDICT.search(text):
            return match[1].lower()
        if name.endswith(("_a", "_b")) and SELF.search(text):
            return name[-1]
    return ""


def answer(asked: Asked, wrong: list[Mistake], choice: str) -> Said:
    """In the form that the schema asks for; without a schema in words."""
    if asked.schema is None:
        return Said(text="; ".join(f"line {m.step}: {m.quote}" for m in wrong) or f"Nothing is wrong; {choice}.")
    filler = SchemaFiller(asked.schema, lambda name, schema: MISSING)

    def choose(name: str, schema: dict[str, Any]) -> Any:
        if {str(v).lower() for v in schema.get("enum", ())} >= CHOICES:
            return next(v for v in schema["enum"] if v.lower() == choice)
        items = filler.resolve(schema.get("items", {}))
        if any(QUOTES.search(key) for key in items.get("properties", {})):
            return [finding(filler, items, m) for m in wrong[: schema.get("maxItems")]]
        return MISSING

    filler.choose = choose
    return Said(text=json.dumps(filler.fill(), ensure_ascii=False))


def finding(filler: SchemaFiller, schema: dict[str, Any], mistake: Mistake) -> Finding:
    """One item of a list of findings."""

    def choose(name: str, field: dict[str, Any]) -> Any:
        if QUOTES.search(name):
            return mistake.quote
        if re.search("step|line", name):
            return mistake.step
        if "correct" in name:
            return mistake.correction
        if re.search("confidence|severity", name):
            return 0.75
        if "arithmetic" in field.get("enum", ()) and "wrong_answer" in field["enum"]:
            return "arithmetic" if "=" in mistake.quote else "wrong_answer"
        return MISSING

    return SchemaFiller(filler.root, choose).fill(schema)  # type: ignore[no-any-return]
