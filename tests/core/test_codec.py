"""Every artifact comes back from disk as it was written; what cannot be kept is refused."""

import dataclasses
import json
import math
import typing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3i import artifacts
from m3i.artifacts import (
    Artifact,
    Finding,
    LayerScores,
    ReferenceLogprobs,
    ScoreRow,
    TargetInfo,
    Telemetry,
    Trace,
    Traces,
)
from m3i.errors import StoreError
from m3i.store import codec

CLASSES = sorted(
    (c for c in vars(artifacts).values() if isinstance(c, type) and issubclass(c, Artifact) and c is not Artifact),
    key=lambda c: c.kind,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ARRAY = hnp.arrays(
    dtype=st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]),
    shape=hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5),
    elements={"allow_nan": False, "allow_infinity": False},
)


def strategy(kind):
    """Values of an annotated type, however deep."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{f.name: strategy(hints[f.name]) for f in stored(kind)})
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(strategy, arguments))
    if origin is dict:
        return st.dictionaries(strategy(arguments[0]), strategy(arguments[1]), max_size=3)
    if arguments:  # a union
        return st.one_of(*map(strategy, arguments))
    leaves = {float: NUMBERS, int: INTEGERS, str: TEXT, typing.Any: JSON, np.ndarray: ARRAY}
    return leaves[kind] if kind in leaves else st.from_type(kind)


def stored(cls):
    return [f for f in dataclasses.fields(cls) if f.metadata.get("storage") != "none"]


def round_trip(artifact, folder):
    codec.write(artifact, folder)
    return codec.read(type(artifact), folder, id=artifact.id, parents=artifact.parents)


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.kind)
def test_any_artifact_comes_back_as_it_was(cls):
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(strategy(cls))
    def check(artifact):
        with TemporaryDirectory() as folder:
            back = round_trip(artifact, Path(folder))
        for field in stored(cls):
            assert same(getattr(artifact, field.name), getattr(back, field.name)), field.name

    check()


def test_every_kind_is_its_own():
    assert len({c.kind for c in CLASSES}) == len(CLASSES) >= 14


def test_identity_comes_from_the_store_and_not_from_the_files(tmp_path):
    codec.write(ReferenceLogprobs(id="old", chosen_P=np.zeros(2), rejected_P=np.ones(2)), tmp_path)
    back = codec.read(ReferenceLogprobs, tmp_path, id="new", parents=("a", "b"))
    assert (back.id, back.parents, back.folder) == ("new", ("a", "b"), tmp_path)
    assert "old" not in "".join(p.read_text(errors="replace") for p in tmp_path.iterdir())


def test_files_are_json_lines_and_safetensors(tmp_path):
    trace = Trace(
        id="p.0",
        problem_id="p",
        sample=0,
        prompt_ids=(1, 2),
        completion_ids=(3,),
        text="line\u2028separator\r\n\x85é",
        offsets=((0, 1),),
        logprobs=(-0.1,),
        correct=True,
        answer=None,
        truncated=False,
    )
    assert round_trip(Traces(traces=(trace, trace)), tmp_path).traces == (trace, trace)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["header.json", "traces.jsonl"]
    lines = (tmp_path / "traces.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["text"] for line in lines[:2]] == [trace.text] * 2
    assert lines[2:] == [b""]


def test_an_array_that_is_a_view_keeps_its_values(tmp_path):
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    back = round_trip(ReferenceLogprobs(chosen_P=whole.T[1], rejected_P=whole[:, ::2].ravel()), tmp_path)
    assert back.chosen_P.tolist() == [1, 5, 9]
    assert back.rejected_P.tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(tmp_path, value):
    row = ScoreRow(observer="joint", scores=(value,), low=(0.0,), high=(0.0,), n_traces=1)
    with pytest.raises(StoreError, match="scores artifact holds a number that is not finite"):
        codec.write(LayerScores(attributor="x", rows=(row,)), tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("header.json", '{"attributor": 3, "rows": [], "left_out": {}}', "field 'attributor' of a scores artifact"),
        ("header.json", '{"attributor": "x", "rows": 3, "left_out": {}}', "field 'rows' of a scores artifact"),
    ],
)
def test_a_file_edited_by_hand_names_the_field(tmp_path, file, text, message):
    codec.write(LayerScores(attributor="x", rows=()), tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(StoreError, match=message):
        codec.read(LayerScores, tmp_path, id="", parents=())


def test_a_missing_array_names_the_field(tmp_path):
    from safetensors.numpy import save_file

    codec.write(ReferenceLogprobs(chosen_P=np.zeros(2), rejected_P=np.ones(2)), tmp_path)
    save_file({"chosen_P": np.zeros(2)}, tmp_path / "arrays.safetensors")
    with pytest.raises(StoreError, match="field 'rejected_P'"):
        codec.read(ReferenceLogprobs, tmp_path, id="", parents=())


def test_telemetry_columns_are_those_of_the_trace():
    empty = np.zeros((0, 5))
    telemetry = Telemetry(
        trace_ids=("a", "b"),
        starts=(0, 2, 5),
        moe_layers=(),
        lens_rank_LS=np.arange(10).reshape(2, 5),
        lens_entropy_LS=empty,
        update_norm_LS=empty,
        attention_entropy_LS=empty,
        router_entropy_RS=empty,
        expert_load_RE=empty,
    )
    assert telemetry.lens_rank_LS[:, telemetry.columns("b")].tolist() == [[2, 3, 4], [7, 8, 9]]
    with pytest.raises(KeyError, match="telemetry has no trace c"):
        telemetry.columns("c")


def test_default_candidates_are_the_layers_with_a_router():
    facts = {"name": "t", "revision": "0", "architecture": "A", "family": "f", "n_parameters": 1, "n_active": 1}
    assert TargetInfo(**facts, n_layers=4, dense_layers=(0, 2)).default_candidates() == (1, 3)
    assert TargetInfo(**facts, n_layers=2).default_candidates() == (0, 1)


def test_artifacts_cannot_be_changed():
    for cls in (*CLASSES, Finding, Trace):
        assert cls.__dataclass_params__.frozen, cls
