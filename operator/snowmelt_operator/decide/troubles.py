"""What is said of the pods' troubles, and when they end an attempt or the job. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from snowmelt_operator.api.policy import Policy
from snowmelt_operator.api.reasons import Reason
from snowmelt_operator.api.run import RunPhase
from snowmelt_operator.api.status import MAX_INCIDENTS, Incident
from snowmelt_operator.api.trouble import Trouble
from snowmelt_operator.api.v1alpha1 import FineTuneJob
from snowmelt_operator.decide import clock
from snowmelt_operator.decide.state import Observed

CAUSE_WINDOW = timedelta(minutes=10)
"""What befell a pod longer ago than this is not why the attempt ended: it went on."""
SETTLE = timedelta(seconds=5)
"""A trouble that lasts less is none: a claim is being bound, a pod waits for the one whose place it takes."""
_MAX_INCIDENT = 1024
_REMEDY = {
    Reason.IMAGE_PULL_ERROR: "correct spec.runtime.image or spec.runtime.imagePullSecrets in a new FineTuneJob",
    Reason.VOLUME_ERROR: "create the claim, or correct the pvc:// URI, and apply a new FineTuneJob",
    Reason.QUOTA_EXCEEDED: "ask for less in spec.workers, or raise the quota, and apply a new FineTuneJob",
}
_OTHER_REMEDY = "correct what it names, and apply a new FineTuneJob"
GRAVITY = (
    Reason.IMAGE_PULL_ERROR,
    Reason.CONTAINER_OOM_KILLED,
    Reason.CONTAINER_START_ERROR,
    Reason.CONTAINER_CRASH_LOOP_BACK_OFF,
    Reason.NODE_LOST,
    Reason.PREEMPTED,
    Reason.POD_EVICTED,
    Reason.QUOTA_EXCEEDED,
    Reason.POD_REFUSED,
    Reason.VOLUME_ERROR,
    Reason.UNSCHEDULABLE,
)
"""Of several reasons the one that explains the others comes first: after a lost node, a pod finds no place."""
_BEFELL = (Reason.CONTAINER_OOM_KILLED, Reason.NODE_LOST, Reason.PREEMPTED, Reason.POD_EVICTED)
_ENDS_AN_ATTEMPT = (Reason.CONTAINER_CRASH_LOOP_BACK_OFF, Reason.CONTAINER_OOM_KILLED, Reason.CONTAINER_START_ERROR)


def lasting(seen: Observed) -> Trouble | None:
    """What keeps the attempt's pods from running, and has for a while."""
    return _gravest(trouble for trouble in _troubles(seen) if not trouble.is_over and _has_settled(seen, trouble))


def _troubles(seen: Observed) -> list[Trouble]:
    """Without what is none: a training elastic job's pods may wait for room as long as it takes."""
    job, run = seen.job, seen.run
    may_wait = isinstance(job, FineTuneJob) and job.spec.workers.elastic is not None
    if not may_wait or run is None or run.phase is not RunPhase.RUNNING:
        return list(seen.troubles)
    return [trouble for trouble in seen.troubles if trouble.reason is not Reason.UNSCHEDULABLE]


def cause(seen: Observed) -> Trouble | None:
    """What befell the attempt's pods, as the cause of its end; what lasted then, where nothing else is known."""
    befell = [*(trouble for trouble in seen.troubles if trouble.is_over), *_remembered(seen)]
    return _gravest(each for each in befell if seen.now - each.since <= CAUSE_WINDOW) or lasting(seen)


def grace(trouble: Trouble, policy: Policy) -> timedelta | None:
    """How long the trouble is borne while nothing runs; None: as long as the deadlines allow."""
    if trouble.is_over or not (trouble.is_permanent or trouble.reason in _ENDS_AN_ATTEMPT):
        return None
    match trouble.reason:
        case Reason.IMAGE_PULL_ERROR:
            return policy.image_pull_grace
        case Reason.VOLUME_ERROR:
            return policy.volume_grace
        case _:
            return policy.start_grace


def unbearable(seen: Observed) -> Trouble | None:
    """What has kept the attempt from starting for longer than its grace."""
    return _gravest(trouble for trouble, left in _graces(seen) if left <= timedelta())


def verdict(trouble: Trouble, policy: Policy) -> str:
    """The message of a job that a trouble ended: what, how long it was borne, and what to do."""
    borne = grace(trouble, policy) or timedelta()
    remedy = _REMEDY.get(trouble.reason, _OTHER_REMEDY)
    return f"{trouble.message}; it stayed so for {borne.total_seconds():.0f} s: {remedy}"


def until_next(seen: Observed) -> timedelta | None:
    """When something about the troubles changes by time alone."""
    waits = [left for _, left in _graces(seen)]
    waits += [SETTLE - (seen.now - trouble.since) for trouble in seen.troubles if not trouble.is_over]
    return min((wait for wait in waits if wait > timedelta()), default=None)


def _graces(seen: Observed) -> list[tuple[Trouble, timedelta]]:
    """The troubles that will end the attempt, and in what time. What trains is not given up for one pod's sake."""
    if seen.run is None or seen.run.phase not in (RunPhase.PENDING, RunPhase.STARTING):
        return []
    graces = [(trouble, grace(trouble, seen.policy)) for trouble in seen.troubles]
    return [(trouble, trouble.since + borne - seen.now) for trouble, borne in graces if borne is not None]


def fresh_incidents(seen: Observed) -> tuple[Incident, ...]:
    """What is wrong and not recorded yet: one incident a reason and attempt."""
    attempt = seen.attempts.current
    if not attempt or seen.attempts.started_at is None:
        return ()
    known = [incident.reason for incident in seen.job.status.incidents if incident.attempt == attempt]
    fresh: dict[str, Incident] = {}
    settled = [trouble for trouble in _troubles(seen) if trouble.is_over or _has_settled(seen, trouble)]
    for trouble in (*settled, *_stall(seen)):
        if trouble.reason not in known:
            fresh.setdefault(trouble.reason, _incident(seen, trouble))
    room = MAX_INCIDENTS - 1 - len(known)  # the last place is for the attempt's failure
    return tuple(fresh.values())[: max(room, 0)]


def recorded(seen: Observed, failure: Incident | None = None) -> tuple[Incident, ...]:
    """status.incidents with what is fresh, and with the attempt's failure."""
    incidents = [*seen.job.status.incidents, *fresh_incidents(seen)]
    if failure is not None:
        same = [each for each in incidents if (each.attempt, each.reason) == (failure.attempt, failure.reason)]
        if not same:
            incidents.append(failure)
        elif same[0].log is None and failure.log is not None:
            incidents[incidents.index(same[0])] = same[0].model_copy(update={"log": failure.log})
    return tuple(sorted(incidents, key=lambda each: each.attempt)[-MAX_INCIDENTS:])  # the oldest attempts' go first


def failure(seen: Observed, reason: str, message: str) -> Incident:
    """The failure of the current attempt, with the last words of whatever ended."""
    words = seen.last_words
    return Incident(
        attempt=max(seen.attempts.current, 1),
        reason=reason,
        message=message[:_MAX_INCIDENT],
        pod=words.pod if words is not None else None,
        time=seen.now,
        log=words.text if words is not None else None,
    )


def _incident(seen: Observed, trouble: Trouble) -> Incident:
    words = seen.last_words if trouble.is_over or trouble.reason in _ENDS_AN_ATTEMPT else None
    its_own = words is not None and words.pod == trouble.pod
    return Incident(
        attempt=seen.attempts.current,
        reason=trouble.reason,
        message=trouble.message[:_MAX_INCIDENT],
        pod=trouble.pod,
        time=seen.now,
        log=words.text if words is not None and its_own else None,
    )


def _stall(seen: Observed) -> list[Trouble]:
    """The silence of a trainer, once it is long enough to be told."""
    since = clock.silent_since(seen)
    if since is None or seen.now - since < seen.policy.stall:
        return []
    return [Trouble(Reason.STALLED, f"the trainer has reported nothing since {since:%Y-%m-%dT%H:%M:%SZ}", None, since)]


def _has_settled(seen: Observed, trouble: Trouble) -> bool:
    return seen.now - trouble.since >= SETTLE


def _remembered(seen: Observed) -> list[Trouble]:
    """What was recorded of the attempt's pods, by an operator before this one perhaps."""
    known = {reason.value: reason for reason in _BEFELL}
    return [
        Trouble(known[each.reason], each.message, each.pod, each.time, is_over=True)
        for each in seen.job.status.incidents
        if each.attempt == seen.attempts.current and each.reason in known
    ]


def _gravest(troubles: Iterable[Trouble]) -> Trouble | None:
    return min(troubles, key=lambda trouble: (GRAVITY.index(trouble.reason), trouble.since), default=None)
