"""Applies FineTuneJobs from many connections at once, and watches what becomes of them."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

NAMESPACE = "bench"
CONNECTIONS = 16
JOBS = f"/apis/snowmelt.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
RAY_JOBS = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"


@dataclass
class Timeline:
    """Seconds since the first apply."""

    applied: float = 0.0
    """All FineTuneJobs were applied."""
    launched: float = 0.0
    """All RayJobs exist."""
    reported: float = 0.0
    """The status of every FineTuneJob names its RayJob."""


@dataclass
class _Seen:
    wanted: int
    names: set[str] = field(default_factory=set)
    at: float = 0.0


async def apply_and_watch(kubeconfig: Path, jobs: int, within_s: float) -> Timeline:
    """Apply so many jobs and wait until all of them are launched and say so.

    Raises:
        TimeoutError: not all of them were within `within_s` seconds.
        aiohttp.ClientResponseError: the API server refused one.
    """
    async with _session(kubeconfig) as session, asyncio.timeout(within_s), asyncio.TaskGroup() as watching:
        launched, reported = _Seen(jobs), _Seen(jobs)
        watching.create_task(_watch(session, RAY_JOBS, launched, lambda _: True))
        watching.create_task(_watch(session, JOBS, reported, lambda job: bool(job.get("status", {}).get("rayJobName"))))
        start = time.monotonic()
        await _apply(session, jobs)
        applied = time.monotonic()
    return Timeline(applied=applied - start, launched=launched.at - start, reported=reported.at - start)


async def _apply(session: aiohttp.ClientSession, jobs: int) -> None:
    names = iter([f"job-{number:05d}" for number in range(jobs)])

    async def one_connection() -> None:
        for name in names:
            query = {"fieldManager": "bench", "force": "true"}
            headers = {"Content-Type": "application/apply-patch+yaml"}
            body = json.dumps(manifest(name))
            async with session.patch(f"{JOBS}/{name}", params=query, data=body, headers=headers) as answer:
                answer.raise_for_status()

    async with asyncio.TaskGroup() as connections:
        for _ in range(CONNECTIONS):
            connections.create_task(one_connection())


async def _watch(session: aiohttp.ClientSession, path: str, seen: _Seen, counts: Any) -> None:
    """Note the objects that count, until all wanted ones were seen."""
    query = {"watch": "true", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    query |= {"allowWatchBookmarks": "true"}
    async with session.get(path, params=query, timeout=aiohttp.ClientTimeout(total=None)) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            event = json.loads(line)
            if event["type"] in ("ADDED", "MODIFIED") and counts(event["object"]):
                seen.names.add(event["object"]["metadata"]["name"])
                if len(seen.names) == seen.wanted:
                    seen.at = time.monotonic()
                    return
    raise TimeoutError(f"the API server closed the watch of {path} after {len(seen.names)} objects")


def _session(kubeconfig: Path) -> aiohttp.ClientSession:
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    return aiohttp.ClientSession(
        base_url=cluster["server"],
        connector=aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS + 2),
        headers={"Authorization": f"Bearer {user['token']}"},
        read_bufsize=2**20,
    )


def manifest(name: str) -> dict[str, Any]:
    """A FineTuneJob as people write them: the twelve lines that make a job."""
    return {
        "apiVersion": "snowmelt.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "backbone": {"architecture": "resnet50", "weights": "IMAGENET1K_V2"},
            "data": {"train": {"uri": "pvc://shoes/train"}, "validation": {"fraction": 0.1}},
            "unfreezing": {"strategy": "Gradual", "target": {"metric": "accuracy", "atLeast": 0.97}},
            "output": {"uri": f"pvc://models/{name}"},
            "workers": {"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}},
        },
    }
