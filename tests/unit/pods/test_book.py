"""What is remembered of pods: what is wrong, since when, and little of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.pods.book import ATTEMPTS_KEPT, MAX_HAPPENED, MAX_PODS, PodBook
from tests.unit.pods.documents import (
    NOT_FOUND,
    UID,
    container,
    disrupted,
    ended,
    parsed,
    pod,
    running,
    unscheduled,
    waiting,
)

START = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def heard(book: PodBook, document: dict[str, Any], *, deleted: bool = False) -> bool:
    return book.heard(parsed(document), deleted=deleted)


def test_a_pod_in_trouble_is_news_once_and_again_when_it_is_well() -> None:
    book = PodBook(Clock())
    assert heard(book, pod(version=1, **waiting("ImagePullBackOff", NOT_FOUND)))
    assert not heard(book, pod(version=1, **waiting("ImagePullBackOff", NOT_FOUND)))
    assert [trouble.reason for trouble in book.troubles(UID, 1)] == [Reason.IMAGE_PULL_ERROR]
    assert heard(book, pod(version=2, **running()))
    assert book.troubles(UID, 1) == ()


def test_a_trouble_that_comes_and_goes_is_as_old_as_when_it_was_first_seen() -> None:
    clock = Clock()
    book = PodBook(clock)
    for version, reason in enumerate(("ErrImagePull", "ContainerCreating", "ImagePullBackOff"), start=1):
        heard(book, pod(version=version, **waiting(reason)))
        clock.now += timedelta(seconds=20)
    (trouble,) = book.troubles(UID, 1)
    assert trouble.since == START


def test_what_happened_to_a_pod_outlives_it_and_what_lasted_does_not() -> None:
    book = PodBook(Clock())
    heard(book, pod("evicted", version=1, phase="Failed", reason="Evicted", message="low on memory"))
    heard(book, pod("pending", version=2, **unscheduled("0/2 nodes are available")))
    assert heard(book, pod("pending", version=3), deleted=True)
    heard(book, pod("evicted", version=4), deleted=True)
    assert [(trouble.reason, trouble.is_over) for trouble in book.troubles(UID, 1)] == [(Reason.POD_EVICTED, True)]


def test_an_older_word_about_a_pod_changes_nothing() -> None:
    book = PodBook(Clock())
    heard(book, pod(version=5, **waiting("ImagePullBackOff")))
    heard(book, pod(version=6, **running()))
    assert not heard(book, pod(version=5, **waiting("ImagePullBackOff")))
    assert book.troubles(UID, 1) == ()


def test_a_list_that_lacks_a_pod_ends_its_trouble() -> None:
    book = PodBook(Clock())
    heard(book, pod(version=1, **waiting("ImagePullBackOff")))
    assert book.listed([]) == {(UID, 1)}
    assert book.troubles(UID, 1) == ()


def test_a_list_finds_what_the_watch_missed() -> None:
    book = PodBook(Clock())
    assert book.listed([parsed(pod(**waiting("ImagePullBackOff")))]) == {(UID, 1)}
    assert len(book.troubles(UID, 1)) == 1


def test_the_container_that_ended_last_is_the_one_whose_log_is_read() -> None:
    book = PodBook(Clock())
    first, second = ended("Error", 1, at="2026-11-24T11:00:00Z"), ended("Error", 1, at="2026-11-24T11:30:00Z")
    heard(book, pod("later", version=1, phase="Failed", containerStatuses=[container(terminated=second)]))
    heard(book, pod("sooner", version=2, phase="Failed", containerStatuses=[container(terminated=first)]))
    newest = book.ended(UID, 1)
    assert newest is not None
    assert newest.pod == "later"


def test_only_living_jobs_and_their_newest_attempts_are_remembered() -> None:
    book = PodBook(Clock())
    for attempt in range(1, ATTEMPTS_KEPT + 2):
        heard(book, pod(f"p{attempt}", attempt=attempt, version=attempt, **waiting("ImagePullBackOff")))
    assert book.troubles(UID, 1) == ()
    assert len(book.troubles(UID, ATTEMPTS_KEPT + 1)) == 1
    book.keep(set())
    assert book.troubles(UID, ATTEMPTS_KEPT + 1) == ()


STATUSES = (
    {},
    running(),
    waiting("ImagePullBackOff"),
    waiting("ContainerCreating"),
    unscheduled("0/2"),
    disrupted("PreemptionByScheduler", "x"),
    {"phase": "Failed", "reason": "Evicted"},
    {"phase": "Failed", "containerStatuses": [container(terminated=ended("OOMKilled", 137))]},
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from(STATUSES), st.booleans()), max_size=300))
def test_a_thousand_workers_in_trouble_take_no_more_memory_than_a_few(
    news: list[tuple[int, dict[str, Any], bool]],
) -> None:
    book = PodBook(Clock())
    for version, (number, status, deleted) in enumerate(news, start=1):
        heard(book, pod(f"worker-{number}", version=version, **status), deleted=deleted)
    troubles = book.troubles(UID, 1)
    assert len([trouble for trouble in troubles if not trouble.is_over]) <= MAX_PODS
    assert len([trouble for trouble in troubles if trouble.is_over]) <= MAX_HAPPENED
