"""What is remembered of pods: only what is wrong, a few entries for each attempt, never a pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.trouble import Trouble
from snowmelt_operator.pods.diagnosis import Diagnosis, Ended, Finding, diagnose
from snowmelt_operator.pods.pod import Pod

MAX_PODS = 8
"""Pods with something wrong that are remembered of one attempt; a thousand workers fail for the same few reasons."""
MAX_HAPPENED = 8
ATTEMPTS_KEPT = 2
"""Attempts of one job that are remembered: the current one, and one that was launched and not recorded yet."""


@dataclass
class _Noted:
    """A pod that is or was of note."""

    uid: str
    version: int
    diagnosis: Diagnosis
    first_seen: dict[Reason, datetime]
    """Since when; kept while a reason comes and goes, as ErrImagePull does between tries."""


@dataclass
class _Attempt:
    pods: dict[str, _Noted] = field(default_factory=dict)
    happened: dict[tuple[str, Reason], Trouble] = field(default_factory=dict)


@dataclass(frozen=True)
class EndedContainer:
    """A container whose log may be read."""

    pod: str
    ended: Ended


@dataclass(frozen=True)
class SilentPod:
    """A pod that does not start and does not say why."""

    name: str
    uid: str
    since: datetime


class PodBook:
    """Fed by the watch and by lists of pods."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0)) -> None:
        self._now = now
        self._attempts: dict[str, dict[int, _Attempt]] = {}

    def heard(self, pod: Pod, *, deleted: bool) -> bool:
        """Take what is said of a pod; True when that is news."""
        attempt = self._attempt(pod)
        if attempt is None:
            return False
        name, diagnosis = pod.metadata.name, diagnose(pod)
        before = attempt.pods.get(name)
        if before is not None and before.uid == pod.metadata.uid and before.version >= pod.version and not deleted:
            return False
        news = self._happened(attempt, name, diagnosis.happened)
        if deleted:
            gone = attempt.pods.pop(name, None)
            return news or (gone is not None and gone.diagnosis.lasting is not None)
        if before is None and diagnosis == Diagnosis():
            return news
        self._note(attempt, pod, before, diagnosis)
        known = before.diagnosis if before is not None else Diagnosis()
        return news or (diagnosis.lasting, diagnosis.silent_since) != (known.lasting, known.silent_since)

    def listed(self, pods: Iterable[Pod]) -> set[tuple[str, int]]:
        """Take a whole list: what is not in it is gone. Returns the attempts about which that was news."""
        news, there = set(), set()
        for pod in pods:
            there.add((pod.job_uid, pod.attempt, pod.metadata.name))
            if self.heard(pod, deleted=False):
                news.add((pod.job_uid, pod.attempt))
        for uid, attempts in self._attempts.items():
            for number, attempt in attempts.items():
                for name in [name for name in attempt.pods if (uid, number, name) not in there]:
                    del attempt.pods[name]
                    news.add((uid, number))
        return news

    def troubles(self, uid: str, attempt: int) -> tuple[Trouble, ...]:
        """What is wrong now, oldest first; then what happened."""
        known = self._find(uid, attempt)
        if known is None:
            return ()
        lasting = [
            _trouble(found, name, noted.first_seen[found.reason])
            for name, noted in known.pods.items()
            if (found := noted.diagnosis.lasting) is not None
        ]
        return (*sorted(lasting, key=lambda trouble: trouble.since), *known.happened.values())

    def unexplained(self, uid: str, attempt: int) -> tuple[SilentPod, ...]:
        """The pods that do not start and do not say why."""
        known = self._find(uid, attempt)
        return tuple(
            SilentPod(name, noted.uid, since)
            for name, noted in (known.pods.items() if known is not None else ())
            if (since := noted.diagnosis.silent_since) is not None
        )

    def ended(self, uid: str, attempt: int) -> EndedContainer | None:
        """The container that ended last, of the pods that are still there."""
        known = self._find(uid, attempt)
        ends = [
            EndedContainer(name, noted.diagnosis.ended)
            for name, noted in (known.pods.items() if known is not None else ())
            if noted.diagnosis.ended is not None
        ]
        oldest = datetime.min.replace(tzinfo=UTC)
        return max(ends, key=lambda each: each.ended.at or oldest, default=None)

    def keep(self, living: set[str]) -> None:
        """Forget all jobs but these (uids)."""
        for uid in set(self._attempts) - living:
            del self._attempts[uid]

    def _find(self, uid: str, attempt: int) -> _Attempt | None:
        return self._attempts.get(uid, {}).get(attempt)

    def _attempt(self, pod: Pod) -> _Attempt | None:
        """Where a pod's attempt is kept; None for one that is too old to matter."""
        attempts = self._attempts.setdefault(pod.job_uid, {})
        attempt = attempts.setdefault(pod.attempt, _Attempt())
        for old in sorted(attempts)[:-ATTEMPTS_KEPT]:
            del attempts[old]
        return attempt if pod.attempt in attempts else None

    def _happened(self, attempt: _Attempt, name: str, found: Finding | None) -> bool:
        if found is None or (name, found.reason) in attempt.happened:
            return False
        if len(attempt.happened) >= MAX_HAPPENED:
            del attempt.happened[next(iter(attempt.happened))]
        attempt.happened[name, found.reason] = _trouble(found, name, self._now(), is_over=True)
        return True

    def _note(self, attempt: _Attempt, pod: Pod, before: _Noted | None, diagnosis: Diagnosis) -> None:
        same = before is not None and before.uid == pod.metadata.uid
        first_seen = dict(before.first_seen) if before is not None and same else {}
        if diagnosis.lasting is not None:
            first_seen.setdefault(diagnosis.lasting.reason, self._now())
        noted = _Noted(pod.metadata.uid, pod.version, diagnosis, first_seen)
        if pod.metadata.name not in attempt.pods and len(attempt.pods) >= MAX_PODS:
            healthy = [name for name, noted in attempt.pods.items() if noted.diagnosis.lasting is None]
            if not healthy:
                return
            del attempt.pods[healthy[0]]
        attempt.pods[pod.metadata.name] = noted


def _trouble(found: Finding, pod: str, since: datetime, *, is_over: bool = False) -> Trouble:
    return Trouble(
        reason=found.reason,
        message=found.message,
        pod=pod,
        since=since,
        is_over=is_over,
        is_permanent=found.is_permanent,
    )
