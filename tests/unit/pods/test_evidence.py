"""What is kept of a log, and what Events explain."""

from __future__ import annotations

from datetime import UTC, datetime

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.cluster import Warned
from snowmelt_operator.pods.evidence import MAX_WORDS, explain, readable, refused

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_a_logs_end_is_plain_text() -> None:
    assert readable(b"\x1b[36m(TrainWorker pid=7)\x1b[0m step 1\r\nlost\x00 it \xff\n\n") == (
        "(TrainWorker pid=7) step 1\nlost it \ufffd"
    )


def test_of_a_long_log_the_last_whole_lines_are_kept() -> None:
    kept = readable(b"\n".join(b"line %d" % number for number in range(10_000)))
    assert len(kept) <= MAX_WORDS
    assert kept.startswith("line ")
    assert kept.endswith("line 9999")


def test_one_line_that_is_too_long_is_cut_at_its_front() -> None:
    assert readable(b"x" * 9999 + b"end") == "x" * (MAX_WORDS - 3) + "end"


def test_events_explain_a_volume_that_cannot_be_mounted() -> None:
    events = [
        Warned("BackOff", "restarting", NOW),
        Warned("FailedMount", 'MountVolume.SetUp failed for volume "claim-0": mount failed: exit status 32', NOW),
    ]
    found = explain(events)
    assert found is not None
    assert found.reason is Reason.VOLUME_ERROR
    assert "exit status 32" in found.message
    assert explain([Warned("Pulling", "", NOW)]) is None


def test_events_of_a_job_tell_why_the_api_server_takes_no_pod_of_it() -> None:
    words = 'pods "a1-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'
    found = refused(
        [Warned("FailedCreate", "Error creating: etcdserver: timeout", NOW), Warned("FailedCreate", words, NOW)]
    )
    assert found is not None
    assert (found.reason, found.message, found.since) == (Reason.QUOTA_EXCEEDED, words, NOW)
    assert not found.is_permanent
    assert refused([Warned("BackoffLimitExceeded", words, NOW)]) is None
