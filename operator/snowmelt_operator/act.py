"""Carry out what was decided. Every action can be carried out twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snowmelt_operator.api.v1alpha1 import API_VERSION, KIND, FineTuneJob
from snowmelt_operator.cluster import Cluster
from snowmelt_operator.decide import Decision, Observed
from snowmelt_operator.decide.state import AskForWorkers, DeleteJob, LaunchAttempt, StopAttempt
from snowmelt_operator.launchers.base import Launch, Launcher, LaunchRefusedError
from snowmelt_operator.progress.tokens import SigningKey, expiry
from snowmelt_operator.render.config import progress_url, run_config
from snowmelt_trainer.contract.run import JobIdentity, ProgressEndpoint


@dataclass(frozen=True)
class Means:
    """What actions are carried out with."""

    cluster: Cluster
    launcher: Launcher
    key: SigningKey
    progress_url: str
    """Base URL of the progress endpoint, as trainers see it."""
    token_file: str | None
    """Where the trainer finds its token; None: in its environment."""
    volumes_root: str
    """Where the trainer finds volumes."""
    on_failed_attempt: Callable[[str], None] = lambda _reason: None


async def act(seen: Observed, decision: Decision, means: Means) -> None:
    """Carry out the actions in their order.

    Raises:
        LauncherError, ClusterError: what was not carried out is decided anew.
    """
    metadata = seen.job.metadata
    for action in decision.actions:
        match action:
            case LaunchAttempt(attempt):
                await means.launcher.launch(_launch(seen, attempt, means))
            case StopAttempt(attempt):
                await means.launcher.stop(metadata, attempt)
            case AskForWorkers(attempt, count):
                await means.launcher.ask_for_workers(metadata, attempt, count)
            case DeleteJob():
                await means.cluster.delete(API_VERSION, KIND, metadata.namespace, metadata.name, uid=metadata.uid)


def _launch(seen: Observed, attempt: int, means: Means) -> Launch:
    job = seen.job
    assert isinstance(job, FineTuneJob)  # an invalid job is never launched
    metadata = job.metadata
    identity = JobIdentity(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid, attempt=attempt)
    url = progress_url(means.progress_url, metadata.namespace, metadata.name)
    endpoint = ProgressEndpoint(url=url, token_file=means.token_file)
    try:
        config = run_config(job.spec, identity, progress=endpoint, volumes_root=means.volumes_root)
    except ValueError as error:
        raise LaunchRefusedError(f"spec.workers.resources: {error}") from error
    token = means.key.issue(
        uid=metadata.uid,
        namespace=metadata.namespace,
        name=metadata.name,
        attempt=attempt,
        expires_at=expiry(seen.now),
    )
    return Launch(job=job, attempt=attempt, config=config, token=token)
