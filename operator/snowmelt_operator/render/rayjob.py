"""The RayJob of one attempt (KubeRay 1.6), and the Secret with its configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from snowmelt_operator.api.defaults import PodDefaults
from snowmelt_operator.api.quantity import parse_quantity
from snowmelt_operator.api.runtime import Runtime
from snowmelt_operator.api.v1alpha1 import API_VERSION, KIND, FineTuneJob, ObjectMeta
from snowmelt_operator.render.config import worker_group
from snowmelt_operator.render.names import QUEUE_LABEL, labels, rayjob_name
from snowmelt_operator.render.placement import affinity
from snowmelt_trainer.contract.run import RunConfig
from snowmelt_trainer.contract.uri import claim_of

RAYJOB_API_VERSION = "ray.io/v1"
RAYJOB_KIND = "RayJob"
WORKER_GROUP = "workers"
VOLUMES_ROOT = "/mnt/snowmelt"
"""Where claims are mounted in the pods."""
RUN_FOLDER = "/etc/snowmelt/run"
"""Where the head finds the run's configuration and its token."""
CONFIG_FILE = f"{RUN_FOLDER}/config.json"
TOKEN_FILE = f"{RUN_FOLDER}/token"
ENTRYPOINT = f"python -m snowmelt_trainer --config {CONFIG_FILE}"
HEAD_RESOURCES = {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
"""The head runs Ray's control plane and the driver, never a worker. Its memory is guaranteed: a head that dies takes
the attempt along (kuberay#2161)."""
SUBMITTER_RESOURCES = {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"memory": "1Gi"}}
STARTUP_GRACE_SECONDS = 60
"""KubeRay's own startup deadline comes so much later than the operator's: it is for when the operator is away."""
SECURITY_CONTEXT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Pod Security Standards, level restricted."""
MEBIBYTE = 1024 * 1024
WORKER_CONTAINER = "ray-worker"
GOODBYE_SECONDS = 10
"""How long a pod may take to end. The head takes all of it: its shell hands no SIGTERM on to Ray. That loses nothing,
for all that the trainer writes appears whole or not at all."""
VOLUME_GROUP = 1000
"""Group that may write to the volumes."""


@dataclass(frozen=True)
class RuntimeDefaults:
    """What the operator's settings add to spec.runtime."""

    image: str
    ray_version: str
    pods: PodDefaults = field(default_factory=PodDefaults)

    def onto(self, job: FineTuneJob) -> FineTuneJob:
        """The job with what its spec.runtime leaves open filled in."""
        runtime = self.pods.onto(job.spec.runtime)
        runtime = runtime.model_copy(update={"image": runtime.image or self.image})
        return job.model_copy(update={"spec": job.spec.model_copy(update={"runtime": runtime})})

    @property
    def pull_policy(self) -> dict[str, str]:
        """The container's field, where it is set."""
        return _given(imagePullPolicy=self.pods.image_pull_policy)


def render_secret(job: FineTuneJob, attempt: int, config: RunConfig, token: str) -> dict[str, Any]:
    """The Secret that the head mounts: config.json and token. It goes with the FineTuneJob."""
    # A pod is one worker. Its Ray counts whole CPUs, so two workers that reserve half a CPU each would share a pod, and
    # the other stay idle.
    whole = config.workers.model_copy(update={"cpus": max(1.0, config.workers.cpus)})
    config = config.model_copy(update={"workers": whole})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(job.metadata, attempt),
        "type": "Opaque",
        "stringData": {"config.json": config.model_dump_json(by_alias=True, exclude_none=True), "token": token},
    }


def render_rayjob(job: FineTuneJob, attempt: int, defaults: RuntimeDefaults) -> dict[str, Any]:
    """The RayJob. Created once and never applied again, because Kueue rewrites its spec; spec.suspend is Kueue's."""
    job = defaults.onto(job)
    metadata = _metadata(job.metadata, attempt)
    if queue := job.spec.runtime.queue_name:
        metadata["labels"] |= {QUEUE_LABEL: queue}
    return {
        "apiVersion": RAYJOB_API_VERSION,
        "kind": RAYJOB_KIND,
        "metadata": metadata,
        "spec": _given(managedBy=job.spec.runtime.managed_by)
        | {
            "submissionMode": "K8sJobMode",
            "entrypoint": ENTRYPOINT,
            # Attempts are ours: they resume from checkpoints, and KubeRay's start from nothing (kuberay#2155).
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "preRunningDeadlineSeconds": job.spec.startup_deadline_seconds + STARTUP_GRACE_SECONDS,
            "submitterPodTemplate": _submitter(job, attempt, defaults),
            "rayClusterSpec": {
                "rayVersion": defaults.ray_version,
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": _head(job, attempt, defaults),
                },
                "workerGroupSpecs": [_worker_group(job, attempt, defaults)],
            },
        },
    }


def _metadata(job: ObjectMeta, attempt: int) -> dict[str, Any]:
    return {
        "name": rayjob_name(job.name, attempt),
        "namespace": job.namespace,
        "labels": labels(job, attempt),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": job.name,
                "uid": job.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def _head(job: FineTuneJob, attempt: int, defaults: RuntimeDefaults) -> dict[str, Any]:
    template = _pod_template(job, attempt, defaults, container="ray-head", resources=HEAD_RESOURCES)
    secret = {"secretName": rayjob_name(job.metadata.name, attempt), "defaultMode": 0o440}
    template["spec"]["volumes"].append({"name": "run", "secret": secret})
    template["spec"]["containers"][0]["volumeMounts"].append({"name": "run", "mountPath": RUN_FOLDER, "readOnly": True})
    return template


def _worker_group(job: FineTuneJob, attempt: int, defaults: RuntimeDefaults) -> dict[str, Any]:
    workers, resources = worker_group(job.spec), job.spec.workers.resources
    requests_and_limits = _given(requests=dict(resources.requests), limits=dict(resources.limits))
    return {
        "groupName": WORKER_GROUP,
        # KubeRay submits the job once every pod of the cluster is ready, so it is asked for no more than must be there.
        "replicas": workers.fewest,
        "minReplicas": workers.fewest,
        "maxReplicas": workers.most,
        "rayStartParams": {"num-cpus": str(max(1, int(workers.cpus))), "num-gpus": str(workers.gpus)},
        "template": _pod_template(job, attempt, defaults, container=WORKER_CONTAINER, resources=requests_and_limits),
    }


def _submitter(job: FineTuneJob, attempt: int, defaults: RuntimeDefaults) -> dict[str, Any]:
    container = {
        "name": "ray-job-submitter",
        "image": job.spec.runtime.image,
        **defaults.pull_policy,
        "resources": SUBMITTER_RESOURCES,
        "securityContext": SECURITY_CONTEXT,
    }
    return {
        "metadata": {"labels": labels(job.metadata, attempt)},
        # KubeRay leaves the restart policy of a given template alone, and a Job needs one (kuberay#2210).
        "spec": _scheduling(job.spec.runtime) | {"restartPolicy": "Never", "containers": [container]},
    }


def _pod_template(
    job: FineTuneJob, attempt: int, defaults: RuntimeDefaults, *, container: str, resources: dict[str, Any]
) -> dict[str, Any]:
    runtime, claims = job.spec.runtime, _claims(job)
    memory = {"medium": "Memory"} | _given(sizeLimit=_shared_memory(resources))
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": memory}]
    mounts: list[dict[str, Any]] = [{"name": "shm", "mountPath": "/dev/shm"}]
    for index, (claim, read_only) in enumerate(claims.items()):
        source = {"claimName": claim, "readOnly": read_only}
        volumes.append({"name": f"claim-{index}", "persistentVolumeClaim": source})
        mounts.append({"name": f"claim-{index}", "mountPath": f"{VOLUMES_ROOT}/{claim}", "readOnly": read_only})
    environment = [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]
    return {
        "metadata": {"labels": labels(job.metadata, attempt)},
        "spec": _scheduling(runtime)
        | {
            "affinity": affinity(runtime.placement, job.metadata, attempt, worker=container == WORKER_CONTAINER),
            "securityContext": {"fsGroup": VOLUME_GROUP, "fsGroupChangePolicy": "OnRootMismatch"},
            "terminationGracePeriodSeconds": GOODBYE_SECONDS,
            "volumes": volumes,
            "containers": [
                {
                    "name": container,
                    "image": runtime.image,
                    **defaults.pull_policy,
                    "env": environment + [variable.to_json_dict() for variable in runtime.env],
                    "securityContext": SECURITY_CONTEXT,
                    "volumeMounts": mounts,
                    **_given(resources=resources),
                }
            ],
        },
    }


def _shared_memory(resources: dict[str, Any]) -> str:
    """Half of the container's memory, to which /dev/shm counts: Ray's object store takes 30 %, batches on their way the
    rest. Empty where the memory has no bound, and the node's half is the limit."""
    bounds = resources.get("limits", {}).get("memory") or resources.get("requests", {}).get("memory")
    return f"{max(int(parse_quantity(bounds) / 2 / MEBIBYTE), 64)}Mi" if bounds else ""


def _scheduling(runtime: Runtime) -> dict[str, Any]:
    """The parts of a pod's spec that spec.runtime decides, for every pod of the job."""
    return {
        # The trainer runs people's images on people's data, and has no business with the API server.
        "automountServiceAccountToken": False,
        **_given(
            nodeSelector=dict(runtime.node_selector),
            tolerations=[toleration.to_json_dict() for toleration in runtime.tolerations],
            imagePullSecrets=[reference.to_json_dict() for reference in runtime.image_pull_secrets],
            serviceAccountName=runtime.service_account_name,
            priorityClassName=runtime.priority_class_name,
        ),
    }


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that are not empty. An empty one means the same as none, and each costs the API server its keep:
    it is decoded, pruned, validated, owned by a field manager and sent to every watcher."""
    return {name: value for name, value in fields.items() if value}


def _claims(job: FineTuneJob) -> dict[str, bool]:
    """Every PersistentVolumeClaim that the job names, and whether it is only read."""
    spec = job.spec
    read = [spec.data.train.uri, spec.data.validation.uri]
    read += [source.uri for source in (spec.data.test, spec.backbone.weights_from) if source is not None]
    claims = {claim: True for uri in read if uri and (claim := claim_of(uri))}
    if claim := claim_of(spec.output.uri):
        claims[claim] = False
    return claims
