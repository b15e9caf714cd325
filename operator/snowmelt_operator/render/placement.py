"""Where the pods of one attempt would rather sit. Always a preference: a pod is never left without a place for it."""

from __future__ import annotations

from typing import Any

from snowmelt_operator.api.runtime import Placement
from snowmelt_operator.api.v1alpha1 import ObjectMeta
from snowmelt_operator.render.names import ATTEMPT_LABEL, UID_LABEL

NODE = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
WORKERS = {"ray.io/node-type": "worker"}
"""KubeRay's label of worker pods."""
STRONG, WEAK = 100, 50
"""Weights from 1 to 100 among all that the scheduler weighs."""


def affinity(placement: Placement, job: ObjectMeta, attempt: int, *, worker: bool) -> dict[str, Any]:
    """`spec.affinity` of a head's or a worker's pod."""
    pods = {UID_LABEL: job.uid, ATTEMPT_LABEL: str(attempt)}
    near = [_term(ZONE, pods, STRONG if placement is Placement.SAME_ZONE else WEAK)]
    far = []
    if placement is Placement.SAME_NODE:
        near.append(_term(NODE, pods, STRONG))
    if placement is Placement.DIFFERENT_NODES and worker:
        far.append(_term(NODE, pods | WORKERS, STRONG))
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    apart = {"podAntiAffinity": {preferred: far}} if far else {}
    return {"podAffinity": {preferred: near}} | apart


def _term(topology_key: str, pods: dict[str, str], weight: int) -> dict[str, Any]:
    return {"weight": weight, "podAffinityTerm": {"topologyKey": topology_key, "labelSelector": {"matchLabels": pods}}}
