"""Contrasts at the token where wrong and right text part, whatever the tokenizer does at that place."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from m3i.artifacts import Audit, Problem, StepError, Trace, Verification
from m3i.audits.quotes import make_finding
from m3i.stages.contrast import NoContrast, build_contrasts, fork, part

EOS = 0


def train_bpe():
    """Byte-level BPE that merges digits, so that `12` may be one token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d+|\D"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    corpus = [f"{a}+{b}={a + b}\n" for a in range(40) for b in range(40)]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    return core


BPE = train_bpe()


def encode(text):
    return BPE.encode(text, add_special_tokens=False).ids


def spelled(ids, ends=True, **changes):
    """A trace of exactly these ids; offsets from the decoded prefixes."""
    ids = list(ids)
    offsets, text = [], ""
    for i in range(len(ids)):
        longer = BPE.decode(ids[: i + 1])
        offsets.append((len(text), len(longer)))
        text = longer
    if ends:
        ids.append(EOS)
        offsets.append((len(text), len(text)))
    fields = {
        "id": "t",
        "problem_id": "p",
        "sample": 0,
        "prompt_ids": (7, 8),
        "completion_ids": tuple(ids),
        "text": text,
        "offsets": tuple(offsets),
        "logprobs": (0.0,) * len(ids),
        "correct": False,
        "answer": None,
        "truncated": not ends,
    }
    return Trace(**{**fields, **changes})


def written(text, **changes):
    return spelled(encode(text), **changes)


def assert_fork(trace, right_text):
    """What every fork must be: verbatim context, different tokens, and the right one begins the right text there."""
    index, wrong, right = fork(trace, right_text, encode)
    assert wrong == trace.completion_ids[index]
    assert wrong != right
    before = BPE.decode(list(trace.completion_ids[:index]))
    assert right_text.startswith(before)
    if right != EOS:
        assert right_text.startswith(before + BPE.decode([right]))
        assert not trace.text.startswith(before + BPE.decode([right])) or len(BPE.decode([right])) < len(
            BPE.decode([wrong])
        )
    return index, wrong, right


def test_the_fork_is_at_the_first_different_token():
    trace = written("12+13=26\n26+1=27\n")
    _, wrong, right = assert_fork(trace, "12+13=25\n26+1=27\n")
    assert BPE.decode([wrong]) == "26"
    assert BPE.decode([right]) == "25"


def test_a_merge_across_the_boundary_moves_the_fork():
    """The span of the error is one digit, but the tokenizer writes both digits as one token."""
    trace = written("1+2=31")
    right_text = "1+2=3"
    index, wrong, right = assert_fork(trace, right_text)
    assert encode(right_text)[index] == right
    assert (BPE.decode([wrong]), BPE.decode([right])) == ("31", "3")
    # The model itself wrote 1|2 in two tokens, where the tokenizer would write 12 in one.
    assert len(encode("12")) == 1
    odd = spelled([*encode("1"), *encode("2"), *encode("+2=15")])
    index, _, right = assert_fork(odd, "12+2=14")
    assert BPE.decode(list(odd.completion_ids[:index])).startswith("12+2=")
    assert BPE.decode([right]) in ("14", "4")


def test_a_correction_that_ends_where_the_trace_goes_on():
    trace = written("1+2=3\nand so on")
    _, _, right = assert_fork(trace, "1+2=3\n")
    assert right == EOS
    cut = written("1+2=3\nand so on", ends=False)
    with pytest.raises(NoContrast, match="shows no end of sequence"):
        fork(cut, "1+2=3\n", encode)


def test_a_trace_that_ends_where_the_correction_goes_on():
    trace = written("1+2=3\n")
    index, wrong, _ = assert_fork(trace, "1+2=3\nanswer 3\n")
    assert (index, wrong) == (len(trace.completion_ids) - 1, EOS)
    with pytest.raises(NoContrast, match="was cut before it differs"):
        fork(written("1+2=3\n", ends=False), "1+2=3\nanswer 3\n", encode)


def test_equal_texts_have_no_fork():
    with pytest.raises(NoContrast, match="the correction equals the text"):
        fork(written("1+2=3"), "1+2=3", encode)


text = st.text(alphabet="0123456789+=\né", min_size=1, max_size=14)


@settings(max_examples=300, deadline=None)
@given(text, text, st.data())
def test_any_two_texts_fork_soundly(wrong_text, right_text, data):
    """However the model spelled its text: single characters, the tokenizer's tokens, or a mixture."""
    ids, i = [], 0
    while i < len(wrong_text):
        size = data.draw(st.integers(1, 3))
        ids += encode(wrong_text[i : i + size])
        i += size
    trace = spelled(ids, ends=data.draw(st.booleans()))
    if trace.text != wrong_text:
        return  # an unfinished character: offsets are not this test's matter
    try:
        index, wrong, right = fork(trace, right_text, encode)
    except NoContrast:
        return
    assert wrong == trace.completion_ids[index] != right
    before = list(trace.completion_ids[:index])
    rest = BPE.decode(before)
    if "\ufffd" not in rest:
        assert right_text.startswith(rest)


class OneWrongStep:
    """A source whose verifier knows where `26` should be `25`."""

    libraries = ()

    def __init__(self, knows_steps=True, whole=None):
        self.knows_steps, self.whole = knows_steps, whole

    def draw(self):
        return (), ()

    def verify(self, problem, completion):
        at = completion.find("26")
        if at < 0:
            return Verification(correct=True, answer="25")
        error = StepError(start=at, end=at + 2, kind="arithmetic", corrected="25") if self.knows_steps else None
        return Verification(correct=False, answer="26", first_error=error, corrected=self.whole)


PROBLEM = Problem(id="p", prompt="12+13=?", answer="25")


def build(traces, findings, source=None, observer="checker"):
    audit = Audit(observer=observer, findings=tuple(findings), audited=tuple(t.id for t in traces))
    return build_contrasts([PROBLEM], traces, {observer: audit}, source or OneWrongStep(), encode, n_layers=4)


def test_the_verifier_corrects_a_finding_that_overlaps_its_first_error():
    trace = written("12+13=26\n")
    made = build([trace], [make_finding(trace, "12+13=26", kind="k", reason="r")])
    (contrast,) = made.contrasts
    assert contrast.origin == "correction"
    assert BPE.decode([contrast.right_id]) == "25"
    assert contrast.context_ids == (7, 8, *trace.completion_ids[: contrast.position])
    assert contrast.problem_id == "p"
    assert made.left_out == {}


def test_the_observers_own_correction_comes_first():
    trace = written("12+13=26\n")
    made = build([trace], [make_finding(trace, "26", kind="k", reason="r", correction="27")])
    assert BPE.decode([made.contrasts[0].right_id]) == "27"


def test_a_whole_corrected_completion_is_preferred_to_a_splice():
    trace = written("12+13=26\n")
    made = build(
        [trace], [make_finding(trace, "26", kind="k", reason="r")], OneWrongStep(whole="12+13=25\nanswer 25\n")
    )
    assert BPE.decode([made.contrasts[0].right_id]) == "25"


def test_a_finding_elsewhere_is_left_out_and_counted():
    trace = written("1+1=2\n12+13=26\n")
    made = build([trace], [make_finding(trace, "1+1", kind="k", reason="r")])
    assert made.contrasts == ()
    assert made.left_out == {"checker: the finding does not overlap the first wrong step": 1}


def test_the_first_finding_that_gives_a_contrast_counts_once():
    trace = written("1+1=2\n12+13=26\n")
    findings = [make_finding(trace, quote, kind="k", reason="r") for quote in ("13=26", "1+1", "=26")]
    made = build([trace], findings)
    assert len(made.contrasts) == 1
    assert made.left_out == {}


def test_a_right_trace_gives_none():
    trace = written("12+13=25\n", correct=True)
    made = build([trace], [make_finding(trace, "25", kind="k", reason="r")], observer="surprisal")
    assert made.left_out == {"surprisal: the trace is right by the verifier": 1}


def test_without_steps_the_trace_parts_from_the_right_sample_that_follows_it_longest():
    wrong = written("12+13=26\n")
    near = written("12+13=25\n", id="near", correct=True)
    far = written("3+22=25\n", id="far", correct=True)
    other_prompt = replace(written("12+13=27\n", id="other", correct=True), prompt_ids=(9,))
    finding = make_finding(wrong, "26", kind="k", reason="r")
    made = build([wrong, far, near, other_prompt], [finding], OneWrongStep(knows_steps=False))
    (contrast,) = made.contrasts
    assert contrast.origin == "divergence"
    assert BPE.decode([contrast.right_id]) == "25"
    assert BPE.decode([contrast.wrong_id]) == "26"
    alone = build([wrong], [finding], OneWrongStep(knows_steps=False))
    assert alone.left_out == {"checker: no right sample of the same prompt": 1}


def test_the_end_of_a_right_sample_is_a_token_too():
    wrong = written("25\nno, 26\n")
    right = written("25\n", id="r", correct=True)
    assert part(wrong, [right])[2] == EOS
    with pytest.raises(NoContrast, match="no right sample that parts"):
        part(written("25\n", ends=False), [right])


def test_agreement_is_part_of_the_contrasts():
    trace = written("12+13=26\n")
    audits = {
        name: Audit(observer=name, findings=(make_finding(trace, "26", kind="k", reason="r"),), audited=("t",))
        for name in ("checker", "surprisal")
    }
    made = build_contrasts([PROBLEM], [trace], audits, OneWrongStep(), encode, n_layers=4)
    assert [c.observer for c in made.contrasts] == ["checker", "surprisal"]
    assert made.agreement["pairs"][0]["spans"]["f1"] == 1.0
