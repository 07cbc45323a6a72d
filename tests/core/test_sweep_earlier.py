"""Results that were there before the plan."""

import pytest

from m3i.sweep.load import Job
from m3i.sweep.preregistration import trained_before

PLAN = {"at": "2026-11-22 21:00:00+0100"}


def job(made_at):
    stages = [{"stage": "trace", "made_at": "2020-01-01T00:00:00Z"}, {"stage": "train", "made_at": made_at}]
    return Job(arm="all", seed=0, folder="all/seed-0", state="done", result={"stages": stages})


def test_shared_stages_may_be_older_and_adapters_may_not():
    assert trained_before([job("2026-11-22T20:00:01Z")], PLAN) == []
    (words,) = trained_before(
        [job("2026-11-22T19:59:59Z"), job("2026-11-22T19:00:00Z"), job("2026-11-22T20:00:01Z")], PLAN
    )
    assert words.startswith("2 of 3 adapters were trained before this plan was registered (2026-11-22 21:00:00+0100)")
    assert "2026-11-22 19:00:00+0000" in words


@pytest.mark.parametrize(
    ("made_at", "plan"), [("", PLAN), ("2026-11-22T19:00:00Z", {}), ("2026-11-22T19:00:00Z", {"at": "?"})]
)
def test_unknown_times_are_no_finding(made_at, plan):
    assert trained_before([job(made_at)], plan) == []
