"""Checks for components of one kind. Each returns, or raises ContractError."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from m3i.artifacts import LayerScores, Problem, ScoreRow, TargetInfo
from m3i.contract.subject import Subject
from m3i.errors import ConfigError
from m3i.interfaces import SelectionRequest

PROBE = TargetInfo(
    name="probe",
    revision="0",
    architecture="DeepseekV2ForCausalLM",
    family="probe",
    n_layers=12,
    n_parameters=1,
    n_active=1,
    n_experts=8,
    n_experts_active=2,
    dense_layers=(0,),
)
"""The target that selectors are tried on: 12 layers, of which the first is dense."""

JUNK = ["", " ", "\n\n", "=", "answer", "7", "∞ 🙂 \u0000", "9" * 500, "1/0 = 1\nanswer 1", "(" * 300]
"""Texts that a model might write."""


def some_scores(attributor: str) -> LayerScores:
    """Layer scores of one attributor for the probe."""
    draw = random.Random(attributor)
    values = tuple(draw.random() for _ in range(PROBE.n_layers))
    row = ScoreRow(observer="joint", scores=values, low=values, high=values, n_traces=5)
    return LayerScores(id=attributor, attributor=attributor, rows=(row,))


# -- selectors --------------------------------------------------------------------------------


def selects_the_same_layers_of_the_target_again(subject: Subject) -> None:
    """Equal options and scores give equal layers: ascending, distinct, at least one, candidates of the target."""
    named = {"attributor": "votes"} if "attributor" in _options(subject) else {}
    request = SelectionRequest(info=PROBE, scores={"votes": some_scores("votes")})
    first, second = _make(subject, **named), _make(subject, **named)
    try:
        first.check(PROBE)
    except ConfigError as error:
        subject.unstated(
            f"it refuses a target of {PROBE.n_layers} layers ({error}); state options that make it fit under needs"
        )
    selection = first.select(request)
    if selection != second.select(request):
        subject.fail("two selections of equal options and scores differ; make every draw from an option such as seed")
    layers, candidates = selection.layers, selection.candidates
    if not layers:
        subject.fail("it selects no layer; select at least one, or raise a ConfigError that says why")
    if list(layers) != sorted(set(layers)):
        subject.fail(f"its layers {list(layers)} must be distinct and in ascending order")
    if not set(layers) <= set(candidates) <= set(range(PROBE.n_layers)):
        subject.fail(
            f"its layers {list(layers)} must be among its candidates {list(candidates)}, and those among the target's "
            f"layers, 0 to {PROBE.n_layers - 1}"
        )
    if not selection.reason:
        subject.fail("its selection gives no reason; say in words why it took these layers")


def takes_as_many_layers_as_asked_for(subject: Subject) -> None:
    """A selector with the option `k` takes k layers, and its `check` refuses more than the target has."""
    if "k" not in _options(subject):
        return
    named = {"attributor": "votes"} if "attributor" in _options(subject) else {}
    selector, wanted = _make(subject, **named), PROBE.n_layers + 1
    selection = selector.select(SelectionRequest(info=PROBE, scores={"votes": some_scores("votes")}))
    if len(selection.layers) != selector.k:
        subject.fail(f"k = {selector.k} gives {len(selection.layers)} layers", option="k")
    try:
        _make(subject, k=wanted, **named).check(PROBE)
    except ConfigError as error:
        if f"selector.k = {wanted}" not in str(error):
            subject.fail(f"check() must name 'selector.k = {wanted}'; the error is: {error}", option="k")
    else:
        subject.fail(f"check() accepts {wanted} layers of a target that has {PROBE.n_layers}; refuse them", option="k")


# -- problem sources --------------------------------------------------------------------------


def draws_the_same_problems_and_keeps_its_sides_apart(subject: Subject) -> None:
    """Equal options give equal problems, as many as asked for, none twice or on both sides; another seed, others."""
    size = _size(subject)
    train, held_out = _make(subject, **size).draw()
    if (list(train), list(held_out)) != tuple(map(list, _make(subject, **size).draw())):
        subject.fail("two draws with equal options differ; make every draw from the option seed")
    for side, problems in (("train", train), ("held_out", held_out)):
        if not problems:
            subject.fail(f"it draws no {side} problems")
        if len(problems) != size.get(f"n_{side}", len(problems)):
            subject.fail(f"n_{side} = {size[f'n_{side}']} gives {len(problems)} problems", option=f"n_{side}")
    ids = [problem.id for problem in (*train, *held_out)]
    if len(set(ids)) != len(ids):
        subject.fail(f"{len(ids) - len(set(ids))} of {len(ids)} problems share an id with another; draw each only once")
    if "seed" in _options(subject):
        seed = _make(subject, **size).seed + 1
        other, _ = _make(subject, **size, seed=seed).draw()
        if [problem.id for problem in other] == [problem.id for problem in train]:
            subject.fail(
                f"seed = {seed} gives the train problems of the default seed; draw from the option seed", option="seed"
            )


def verifies_any_text(subject: Subject) -> None:
    """`verify` raises on no text, locates errors within the text, and calls the source's own solutions correct."""
    source = _make(subject, **_size(subject))
    for problem in source.draw()[0]:
        if not isinstance(problem, Problem):
            subject.fail(f"draw() gives a {type(problem).__name__}; it must give m3i.Problem")
        for text in JUNK:
            try:
                error = source.verify(problem, text).first_error
            except Exception as raised:  # foreign code: anything may come out of it
                subject.fail(
                    f"verify() raises {type(raised).__name__} on {text[:40]!r}: {raised}; call the text incorrect "
                    f"instead"
                )
            if error is not None and not 0 <= error.start <= error.end <= len(text):
                subject.fail(f"verify() reports an error at {error.start} to {error.end} of {len(text)} characters")
        if problem.solution:
            verification = source.verify(problem, problem.solution)
            if not verification.correct or verification.first_error is not None:
                subject.fail(f"verify() calls the source's own solution of {problem.prompt!r} incorrect")


def _size(subject: Subject) -> dict[str, Any]:
    if subject.case.draws is not None:
        return subject.case.draws
    size = {"n_train": 12, "n_held_out": 9}
    return size if set(size) <= _options(subject) else {}


def _options(subject: Subject) -> set[str]:
    return {option.name for option in subject.options}


def _make(subject: Subject, **options: Any) -> Any:
    return subject.make(**options)


CHECKS: dict[str, tuple[Callable[[Subject], None], ...]] = {
    "selector": (selects_the_same_layers_of_the_target_again, takes_as_many_layers_as_asked_for),
    "problems": (draws_the_same_problems_and_keeps_its_sides_apart, verifies_any_text),
}
"""Group → its checks."""
