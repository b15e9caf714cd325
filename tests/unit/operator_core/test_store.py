"""The newest of every job, from watches, lists and answers in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.store import JobStore, Key
from tests.unit.operator_core.building import UID, attempts, job

SHOES = Key("team", "shoes")


def version(number: int, *, uid: str = UID, name: str = "shoes") -> FineTuneJob:
    return job(
        metadata={"resourceVersion": str(number), "uid": uid, "name": name}, status={"attempts": attempts(number)}
    )


@given(st.lists(st.integers(1, 50), min_size=1))
def test_the_greatest_version_wins_in_whatever_order_they_come(numbers: list[int]) -> None:
    store = JobStore()
    for number in numbers:
        store.put(version(number))
    known = store.get(SHOES)
    assert known is not None
    assert known.metadata.resource_version == str(max(numbers))


def test_what_is_known_already_is_no_news() -> None:
    store = JobStore()
    assert store.put(version(2))
    assert not store.put(version(2))
    assert not store.put(version(1))


def test_a_deleted_job_is_remembered_until_its_run_was_stopped() -> None:
    store = JobStore()
    store.put(version(3))
    assert store.remove(SHOES, UID)
    assert store.get(SHOES) is None
    (gone,) = store.gone(SHOES)
    assert (gone.metadata.uid, gone.attempt) == (UID, 3)
    store.settled(SHOES, gone)
    assert store.gone(SHOES) == ()


def test_a_job_created_anew_under_the_same_name_buries_the_old_one() -> None:
    store = JobStore()
    store.put(version(3))
    store.put(version(5, uid="another"))
    assert [gone.metadata.uid for gone in store.gone(SHOES)] == [UID]
    assert not store.remove(SHOES, UID)  # the late DELETED of the old one


def test_what_vanished_from_a_list_is_gone_and_what_came_during_it_is_not() -> None:
    store = JobStore()
    store.put(version(1))
    before = set(store)
    store.put(version(9, name="hats", uid="hats"))  # heard of while the list was on its way
    assert store.replace(before, []) == {SHOES}
    assert [str(key) for key in store] == ["team/hats"]
