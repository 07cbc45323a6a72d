"""Steps and the telemetry digest."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_scripted import trace_of

from m3i.artifacts import Telemetry
from m3i.llm.digest import MAX_STEPS, numbered, step_at, steps_of, telemetry_digest, token_steps


def telemetry_of(*traces, n_layers=3, moe_layers=(1, 2), seed=0):
    widths = [len(t.completion_ids) for t in traces]
    starts = tuple(int(n) for n in np.concatenate([[0], np.cumsum(widths)]))
    rng = np.random.default_rng(seed)

    def table(rows):
        return rng.uniform(0, 3, size=(rows, starts[-1])).astype(np.float32)

    return Telemetry(
        trace_ids=tuple(t.id for t in traces),
        starts=starts,
        moe_layers=moe_layers,
        lens_rank_LS=rng.integers(0, 1000, size=(n_layers, starts[-1])).astype(np.int32),
        lens_entropy_LS=table(n_layers),
        update_norm_LS=table(n_layers),
        attention_entropy_LS=table(n_layers),
        router_entropy_RS=table(len(moe_layers)),
        expert_load_RE=np.full((len(moe_layers), 4), 0.25),
    )


def test_steps_are_lines_that_are_not_blank():
    text = "\na=1\n \n\tb=2\r\nc\u2028d\n"
    assert [text[s.start : s.end] for s in steps_of(text)] == ["a=1", "\tb=2\r", "c\u2028d"]
    assert numbered(text) == "\n1| a=1\n \n2| \tb=2␍\n3| c�d\n"
    assert [step_at(steps_of(text), i) for i in (0, 1, 4, 5, 7, 12, 13)] == [1, 1, 1, 1, 2, 2, 3]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet="ab \n\t\r", max_size=60))
def test_numbering_loses_nothing(text):
    raw = text.split("\n")
    lines = numbered(text).split("\n")
    steps = [i for i, line in enumerate(raw) if line.strip()]
    assert len(steps) == len(steps_of(text))
    for number, i in enumerate(steps, start=1):
        assert lines[i].startswith(f"{number}| ")
        lines[i] = lines[i].removeprefix(f"{number}| ")
    assert "\n".join(lines) == text.replace("\r", "␍")


def test_tokens_belong_to_the_step_they_begin():
    trace = trace_of("")
    trace = type(trace)(
        **{
            **vars(trace),
            "text": "7*6\n\n=42",
            "offsets": ((0, 3), (3, 5), (5, 8), (8, 8)),
            "completion_ids": (1, 2, 3, 4),
        }
    )
    assert token_steps(trace) == [1, 1, 2, 2]
    joined = type(trace)(**{**vars(trace), "offsets": ((0, 3), (3, 6), (6, 8), (8, 8))})
    assert token_steps(joined) == [1, 2, 2, 2]


def test_the_digest_holds_the_means_of_each_step():
    one, other = trace_of("ab\ncd", "p.0"), trace_of("x", "p.1")
    telemetry = telemetry_of(other, one)
    digest = telemetry_digest(telemetry, one)
    tables = [table.split("\n") for table in digest.split("\n\n")]
    assert [t[0].split(",")[0].split(":")[0] for t in tables] == [
        "lens rank", "lens entropy", "residual update |h - h_before| / |h_before|", "attention entropy",
        "router entropy",
    ]  # fmt: skip
    assert all(t[1] == "layer s1 s2" for t in tables)
    assert [row.split()[0] for row in tables[0][2:]] == ["0", "1", "2"]
    assert [row.split()[0] for row in tables[4][2:]] == ["1", "2"]
    columns = telemetry.columns("p.0")
    first, second = slice(columns.start, columns.start + 3), slice(columns.start + 3, columns.stop)
    bits = np.log2(1 + telemetry.lens_rank_LS.astype(float))
    for layer in range(3):
        assert tables[0][2 + layer] == f"{layer} " + " ".join(
            str(round(10 * bits[layer, s].mean())) for s in (first, second)
        )
        update = telemetry.update_norm_LS[layer].astype(float)
        assert tables[2][2 + layer] == f"{layer} " + " ".join(
            str(round(100 * update[s].mean())) for s in (first, second)
        )
    router = telemetry.router_entropy_RS[1].astype(float)
    assert tables[4][3] == "2 " + " ".join(str(round(10 * router[s].mean())) for s in (first, second))


def test_a_trace_that_was_not_measured_has_no_digest_and_a_dense_model_no_router_table():
    trace = trace_of("ab\ncd")
    assert telemetry_digest(telemetry_of(trace_of("x", "p.9")), trace) is None
    assert telemetry_digest(telemetry_of(trace_of("", "p.9")), trace_of("", "p.9")) is not None
    assert "router" not in telemetry_digest(telemetry_of(trace, moe_layers=()), trace)


def test_long_traces_are_cut_and_say_so_and_stay_small():
    trace = trace_of("\n".join(f"{i}+1={i + 1}" for i in range(MAX_STEPS + 15)))
    digest = telemetry_digest(telemetry_of(trace, n_layers=27, moe_layers=tuple(range(1, 27))), trace)
    assert f"Steps {MAX_STEPS + 1} to {MAX_STEPS + 15} are not in the tables." in digest
    assert f"s{MAX_STEPS}\n" in digest
    assert f"s{MAX_STEPS + 1}" not in digest
    assert len(digest) < 12_000


def test_a_value_that_is_no_number_is_shown_as_unknown():
    trace = trace_of("a")
    telemetry = telemetry_of(trace)
    telemetry.lens_entropy_LS[1, :] = np.nan
    assert "\n1 ?\n" in telemetry_digest(telemetry, trace)
