"""One leader among several replicas, by a Lease (`kubernetes.aio.leaderelection`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

log = logging.getLogger(__name__)

LEASE_SECONDS = 15
RENEW_SECONDS = 10
RETRY_SECONDS = 2
"""client-go's defaults: a leader that cannot renew for 10 s stops, and after 15 s another may lead."""
RELEASE_SECONDS = 3
"""How long giving the Lease back may take; a successor that hears nothing of it waits until it has expired."""


class LeadershipLostError(Exception):
    """Another replica may lead now; the process ends and starts as a follower."""


class _Lock(LeaseLock):
    """A Lease; an API server that cannot be reached is a failed try, where the library would end the election.

    `asked` hears of every look at the Lease whether the API server answered.
    """

    def __init__(
        self, name: str, namespace: str, identity: str, api_client: client.ApiClient, asked: Callable[[bool], None]
    ) -> None:
        super().__init__(name, namespace, identity, api_client)
        self._asked = asked

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        try:
            answer = await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._asked(False)
            return False, ApiException(status=0, reason=str(error) or type(error).__name__)
        self._asked(True)
        return answer

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        # Not the library's own: kubernetes 37.0 passes `pretty=True`, which its generated client refuses as no string.
        body = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, body)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("Lease %s/%s was not created: %s", namespace, name, error)
            return False
        return True

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        try:
            return await super().update(name, namespace, updated_record)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def release(self, name: str, namespace: str) -> None:
        """Give the Lease back, if it is still ours, so that a successor need not wait until it has expired."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                lease = await self.api_instance.read_namespaced_lease(name, namespace)
                if lease.spec is not None and lease.spec.holder_identity == self.identity:
                    # Absent, not empty: the library takes an empty name for the name of a holder.
                    lease.spec.holder_identity = None
                    await self.api_instance.replace_namespaced_lease(name, namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("Lease %s/%s was not given back: %s", namespace, name, str(error) or type(error).__name__)


async def _first_to_end(election: asyncio.Task[None], working: asyncio.Future[Any]) -> None:
    """Wait for the end of the work, whose task `working` will hold once it has begun, or of the election, and raise
    what ended it."""
    await asyncio.wait({election, working}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        task = working.result()
        await asyncio.wait({election, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            await task
    await election


async def lead(
    work: Callable[[], Awaitable[None]],
    api_client: client.ApiClient,
    *,
    name: str,
    namespace: str,
    identity: str,
    asked: Callable[[bool], None] = lambda _: None,
) -> None:
    """Wait until this replica leads, then do the work while it does. `asked` hears, with every look at the Lease,
    whether the API server answered: of a standby it is the only sign that it could work.

    Raises:
        LeadershipLostError: the Lease could not be renewed; the work was cancelled.
        Exception: whatever the work raises.
    """
    working = asyncio.get_running_loop().create_future()

    async def elected() -> None:
        # The election would neither look at how the work ends nor take it along when it is cancelled.
        task = asyncio.ensure_future(work())
        working.set_result(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()

    async def lost() -> None:
        raise LeadershipLostError(f"Lease {namespace}/{name} could not be renewed by {identity}")

    lock = _Lock(name, namespace, identity, api_client, asked)
    config = Config(lock, LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, elected, lost)
    election = asyncio.create_task(LeaderElection(config).run(), name="leader election")
    try:
        await _first_to_end(election, working)
    finally:
        election.cancel()
        if working.done():
            working.result().cancel()
            # Only when all work has ended may another begin.
            await asyncio.gather(working.result(), election, return_exceptions=True)
            await lock.release(name, namespace)
