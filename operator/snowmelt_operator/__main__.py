"""`python -m snowmelt_operator`: wire the parts together and run until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from functools import partial

import aiohttp
from kubernetes.aio import client

from snowmelt_operator.act import Means
from snowmelt_operator.api.stored import StoredJob
from snowmelt_operator.apiserver import KubernetesCluster
from snowmelt_operator.cluster import ClusterError
from snowmelt_operator.connection import kopf_session, load_configuration
from snowmelt_operator.health import HealthServer, Vitals
from snowmelt_operator.launchers.base import Launcher
from snowmelt_operator.launchers.kuberay import KubeRayLauncher
from snowmelt_operator.launchers.ray import RayLauncher
from snowmelt_operator.leadership import LeadershipLostError, lead
from snowmelt_operator.metrics import Metrics
from snowmelt_operator.progress.endpoint import ProgressEndpoint
from snowmelt_operator.progress.writer import ProgressWriter
from snowmelt_operator.queue import WorkQueue
from snowmelt_operator.reconcile import Reconciler, Resync
from snowmelt_operator.render.rayjob import TOKEN_FILE, VOLUMES_ROOT, RuntimeDefaults
from snowmelt_operator.settings import Settings, SettingsError
from snowmelt_operator.signing import load_key
from snowmelt_operator.store import JobStore, Key
from snowmelt_operator.watches import Watches

log = logging.getLogger("snowmelt_operator")
WATCHED = ("finetunejobs", "rayjobs")


class Operator:
    """The parts, wired."""

    def __init__(self, settings: Settings, configuration: client.Configuration) -> None:
        self.settings = settings
        self.configuration = configuration
        self.metrics = Metrics()
        self.vitals = Vitals()
        self.store = JobStore(on_put=self.metrics.saw_job, on_remove=self.metrics.lost_job)
        self.cluster = KubernetesCluster(
            configuration,
            namespaces=settings.namespaces,
            identity=settings.identity,
            timeout_seconds=settings.request_timeout_seconds,
            read=self.store.read,
            on_job=self._heard,
            on_request=self._requested,
        )
        self.queue: WorkQueue | None = None
        self.stopping = asyncio.Event()

    def _heard(self, job: StoredJob) -> None:
        if self.queue is not None and self.store.put(job):
            self.wake(job.metadata.namespace, job.metadata.name)

    def _requested(self, verb: str, kind: str, answered: bool) -> None:
        self.metrics.api_request(verb, kind)
        self._answered(answered)

    def _answered(self, answered: bool) -> None:
        if answered:
            self.vitals.api_answered = time.monotonic()
        else:
            self.vitals.api_failed = time.monotonic()

    def _asked(self, plural: str) -> None:
        if plural in WATCHED:
            self.vitals.watches[plural] = time.monotonic()

    def wake(self, namespace: str, name: str) -> None:
        if self.queue is not None:
            self.queue.wake(Key(namespace, name))

    def install_signals(self) -> None:
        """SIGTERM and SIGINT end the operator; kopf installs its own handlers whenever it starts."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)

    async def serve(self) -> None:
        """Run until a signal comes.

        Raises:
            SettingsError, ClusterError, LeadershipLostError, OSError: the operator cannot run (any more).
        """
        self.install_signals()
        async with AsyncExitStack() as stack:
            running = asyncio.create_task(self._run(stack), name="operator")
            stopping = asyncio.create_task(self.stopping.wait(), name="signals")
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if running.done():
                await running
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        log.info("stopped")

    async def _run(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        stack.push_async_callback(self.cluster.aclose)
        health = HealthServer(self.vitals, self.metrics.render)
        log.info("health on port %d", health.start(settings.health_host, settings.health_port))
        stack.callback(health.stop)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.vitals.beat(), name="heartbeat")
            key = await load_key(settings, self.cluster)
            self.vitals.key_loaded = True
            writer = ProgressWriter(self.cluster)
            stack.push_async_callback(writer.aclose)
            endpoint = ProgressEndpoint(key, writer, answered=self.metrics.progress_answered)
            runner = await endpoint.start(settings.progress_host, settings.progress_port)
            stack.push_async_callback(runner.cleanup)
            launcher = await self._launcher(stack)
            kuberay = isinstance(launcher, KubeRayLauncher)
            means = Means(
                cluster=self.cluster,
                launcher=launcher,
                key=key,
                progress_url=settings.progress_url,
                token_file=TOKEN_FILE if kuberay else None,
                volumes_root=VOLUMES_ROOT if kuberay else settings.volumes_root,
                on_failed_attempt=self.metrics.attempt_failed,
            )
            await self._reconcile_as_leader(means)

    async def _launcher(self, stack: AsyncExitStack) -> Launcher:
        settings = self.settings
        if settings.launcher == "kuberay":
            defaults = RuntimeDefaults(settings.trainer_image, settings.ray_version, settings.pod_defaults)
            return KubeRayLauncher(self.cluster, defaults, wake=self.wake)
        timeout = aiohttp.ClientTimeout(total=settings.request_timeout_seconds)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        token = None
        if settings.ray_token_file is not None:
            try:
                token = settings.ray_token_file.read_text("utf-8").strip()
            except OSError as error:
                raise SettingsError(f"SNOWMELT_RAY_TOKEN_FILE: {error}") from error
        return RayLauncher(
            session, settings.ray_address, wake=self.wake, poll_seconds=settings.poll_seconds, token=token
        )

    async def _reconcile_as_leader(self, means: Means) -> None:
        settings = self.settings
        work = partial(self._reconcile, means)
        if not settings.leader_election:
            await work()
            return
        log.info("%s waits for Lease %s/%s", settings.identity, settings.operator_namespace, settings.lease_name)
        await lead(
            work,
            self.cluster.api_client,
            name=settings.lease_name,
            namespace=settings.operator_namespace,
            identity=settings.identity,
            asked=self._answered,
        )

    async def _reconcile(self, means: Means) -> None:
        """The leader's work; never ends."""
        settings = self.settings
        self.vitals.to_list = frozenset({"FineTuneJob"})
        queue = self.queue = WorkQueue(
            Reconciler(self.store, means, policy=settings.policy),
            workers=settings.workers,
            backoff_base=settings.backoff_base_seconds,
            backoff_max=settings.backoff_max_seconds,
            on_done=lambda seconds, failed: self.metrics.reconciled(seconds, failed=failed),
            on_depth=self.metrics.queue_depth,
        )
        listed = asyncio.Event()
        resync = Resync(
            self.store,
            means,
            wake=queue.wake,
            listed=listed.set,
            every=settings.resync_seconds,
            backoff_max=settings.backoff_max_seconds,
        )
        kuberay = means.launcher if isinstance(means.launcher, KubeRayLauncher) else None
        watches = Watches(self.store, kuberay, wake=queue.wake, ask_for_list=resync.ask)
        async with asyncio.TaskGroup() as group:
            group.create_task(resync.run(), name="resync")
            if isinstance(means.launcher, RayLauncher):
                group.create_task(means.launcher.poll(), name="poll of Ray")
            # Before the first list a run that is unknown could not be told from one that vanished.
            await listed.wait()
            self.vitals.listed = self.vitals.to_list
            queue.start()
            self._watch_over(queue)
            try:
                connect = partial(kopf_session, self.configuration, self._asked)
                await watches.run(connect, settings.namespaces, started=self.install_signals)
            finally:
                await queue.stop()

    def _watch_over(self, queue: WorkQueue) -> None:
        self.vitals.workers_wanted = self.vitals.workers_alive = len(queue.tasks)

        def died(_: asyncio.Task[None]) -> None:
            self.vitals.workers_alive -= 1

        for task in queue.tasks:
            task.add_done_callback(died)


async def run(settings: Settings) -> None:
    await Operator(settings, await load_configuration()).serve()


def main() -> None:
    """Exit status 2 for wrong settings, 1 when the operator had to give up, 0 after SIGTERM."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.exit(_refuse(str(error)))
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for chatty in ("kopf", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    try:
        asyncio.run(run(settings))
    except* SettingsError as group:
        sys.exit(_refuse("\n".join(str(error) for error in group.exceptions)))
    except* (ClusterError, LeadershipLostError, OSError) as group:
        for problem in group.exceptions:
            log.error("%s", problem)
        sys.exit(1)


def _refuse(problems: str) -> int:
    print(f"snowmelt-operator: the settings are wrong:\n{problems}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
