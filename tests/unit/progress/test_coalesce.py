"""What is written of one job's progress, and when: pure rules over a clock that the tests turn."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt_operator.api.stored import read_job
from snowmelt_operator.progress.coalesce import PACE, Lane, already_recorded, due_at, offer, rank, why_over, wrote
from snowmelt_trainer.contract.progress import Progress
from tests.unit.progress.snapshots import job_document, snapshot

snapshots = st.builds(
    snapshot, st.integers(0, 40), attempt=st.integers(1, 3), stage=st.integers(1, 4), final=st.booleans()
)
arrivals = st.lists(st.tuples(st.floats(0, 9, allow_nan=False), snapshots), max_size=40)


def run(posts: list[tuple[float, Progress]]) -> list[tuple[float, Progress]]:
    """Play the posts (gap in seconds, snapshot) against an ideal API server; gives when what was written."""
    lane, now, writes = Lane(), 0.0, []
    for gap, progress in [*posts, (2 * PACE, None)]:
        now += gap
        due = due_at(lane)
        if due is not None and due <= now and lane.pending is not None:
            writes.append((due, lane.pending))
            lane = wrote(lane, lane.pending, due)
        if progress is not None:
            lane = offer(lane, progress)
            due = due_at(lane)
            if due is not None and due <= now and lane.pending is not None:
                writes.append((now, lane.pending))
                lane = wrote(lane, lane.pending, now)
    return writes


@given(arrivals)
def test_two_writes_of_one_stage_are_never_closer_than_the_pace(posts: list[tuple[float, Progress]]) -> None:
    writes = run(posts)
    for (before, earlier), (after, later) in itertools.pairwise(writes):
        same = earlier.stage == later.stage and earlier.attempt == later.attempt and later.final is None
        assert not same or after - before >= PACE - 1e-9


@given(arrivals)
def test_the_newest_snapshot_is_always_written_in_the_end(posts: list[tuple[float, Progress]]) -> None:
    writes = run(posts)
    assert max((rank(p) for _, p in posts), default=None) == max((rank(p) for _, p in writes), default=None)


@given(arrivals)
def test_progress_never_goes_back(posts: list[tuple[float, Progress]]) -> None:
    ranks = [rank(progress) for _, progress in run(posts)]
    assert ranks == sorted(set(ranks))


@given(arrivals)
def test_a_new_stage_and_a_final_record_are_written_at_once(posts: list[tuple[float, Progress]]) -> None:
    now, newest, stage = 0.0, (-1, -1), None
    written_at = {rank(progress): when for when, progress in run(posts)}
    for gap, progress in posts:
        now += gap
        if rank(progress) <= newest:
            continue
        newest = rank(progress)
        if progress.final is not None or (progress.attempt, progress.stage) != stage:
            assert written_at[newest] == now
        stage = (progress.attempt, progress.stage)


def test_within_a_stage_the_next_write_waits_for_the_pace() -> None:
    lane = wrote(offer(Lane(), snapshot(1)), snapshot(1), now=100.0)
    assert due_at(offer(lane, snapshot(2))) == 100.0 + PACE


def test_a_snapshot_that_came_during_a_write_still_waits_after_it() -> None:
    lane = offer(offer(Lane(), snapshot(1)), snapshot(2))
    assert wrote(lane, snapshot(1), now=1.0).pending == snapshot(2)


@pytest.mark.parametrize("urgent", [snapshot(2, stage=2), snapshot(2, final=True), snapshot(0, attempt=2)])
def test_a_stage_change_a_final_record_and_a_new_attempt_do_not_wait(urgent: Progress) -> None:
    lane = wrote(Lane(), snapshot(1), now=100.0)
    assert due_at(offer(lane, urgent)) == -math.inf


def ended(condition: str, reason: str) -> dict[str, Any]:
    entry = {"type": condition, "status": "True", "reason": reason, "lastTransitionTime": "2026-11-24T12:00:00Z"}
    return {"attempts": {"current": 1}, "conditions": [entry]}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"attempts": {"current": 2}}, "superseded by attempt 2"),
        ({"attempts": {"current": 1}, "trainer": {"attempt": 2}}, "superseded by attempt 2"),
        (ended("Complete", "TargetMet"), "the job is Complete"),
        (ended("Failed", "Diverged"), "the job is Failed"),
        (ended("Suspended", "Suspended"), "the job is Suspended"),
    ],
)
def test_an_attempt_that_is_over_may_not_report(status: dict[str, Any], words: str) -> None:
    over = why_over(read_job(job_document(status)), snapshot(5))
    assert over is not None
    assert words in over


def test_a_restarted_operator_knows_the_newest_sequence_from_status() -> None:
    job = read_job(job_document({"attempts": {"current": 1}, "trainer": {"attempt": 1, "sequence": 5}}))
    assert already_recorded(job, snapshot(5))
    assert not already_recorded(job, snapshot(6))
    assert why_over(job, snapshot(6)) is None


def test_a_trainer_may_report_before_status_names_its_attempt() -> None:
    assert why_over(read_job(job_document({"attempts": {"current": 1}})), snapshot(0, attempt=2)) is None
