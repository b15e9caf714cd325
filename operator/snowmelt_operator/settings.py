"""What the operator is told by its environment, parsed once at the start."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from snowmelt_operator.api.defaults import PodDefaults
from snowmelt_operator.api.policy import Policy

PREFIX = "SNOWMELT_"
Port = Annotated[int, Field(ge=0, le=65535)]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+.*$", max_length=1024)]
Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


def _words(value: object) -> object:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


class SettingsError(Exception):
    """The environment is wrong; the message has one line for each variable to change."""


class Settings(BaseModel):
    """Every setting; the environment variable of `ray_address` is SNOWMELT_RAY_ADDRESS, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launcher: Literal["kuberay", "ray"] = "kuberay"
    """Who runs the trainers: KubeRay (a RayJob for each attempt), or an existing Ray cluster."""
    namespaces: Annotated[tuple[Namespace, ...], BeforeValidator(_words)] = ()
    """Namespaces to serve, separated by commas; all of them when empty."""
    trainer_image: str = ""
    """Image of the trainer, for jobs that name none (launcher kuberay)."""
    pod_defaults: Annotated[PodDefaults, BeforeValidator(_json)] = PodDefaults()
    """What the pods of all jobs have where spec.runtime does not say otherwise, as JSON (launcher kuberay)."""
    ray_version: str = "2.60.0"
    """Version of Ray in the trainer's image (launcher kuberay)."""
    ray_address: HttpUrl = "http://127.0.0.1:8265"
    """URL of the Ray dashboard (launcher ray)."""
    ray_token_file: Path | None = None
    """File with the bearer token of a Ray cluster that asks for one (launcher ray)."""
    volumes_root: str = "/mnt/snowmelt"
    """Folder under which the trainer finds pvc://CLAIM/path as CLAIM/path."""

    progress_url: HttpUrl = "http://127.0.0.1:8090"
    """Base URL at which trainers reach the progress endpoint; a path in it is kept."""
    progress_host: str = "127.0.0.1"
    progress_port: Port = 8090
    """Where the progress endpoint listens; port 0 takes a free one."""
    health_host: str = "127.0.0.1"
    health_port: Port = 8091
    """Where /healthz, /readyz and /metrics listen."""
    token_key_file: Path | None = None
    """File with the key that signs progress tokens (at least 32 bytes). When absent, the operator keeps one
    in the Secret below."""
    token_secret: str = "snowmelt-progress-key"
    """Name of that Secret, in the operator's namespace."""

    operator_namespace: Namespace = "snowmelt-system"
    """The operator's own namespace: its Lease and its Secret."""
    leader_election: bool = False
    """True when several replicas run: one holds the Lease and reconciles, all of them take progress reports."""
    lease_name: str = "snowmelt-operator"
    identity: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        default_factory=socket.gethostname
    )
    """This replica's name, as the Lease and the Events show it; in a pod, the pod's name."""

    workers: Annotated[int, Field(ge=1, le=256)] = 8
    """How many jobs are reconciled at the same time."""
    resync_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How often everything is listed and looked at again."""
    backoff_base_seconds: Annotated[float, Field(gt=0)] = 0.5
    backoff_max_seconds: Annotated[float, Field(gt=0)] = 60.0
    """First and longest delay after a reconcile that failed."""
    image_pull_grace_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long an image may be impossible to pull before its job fails."""
    volume_grace_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long a claim may be missing before its job fails."""
    start_grace_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long pods may be refused, or containers fail to start, before the job or the attempt fails."""
    stall_seconds: Annotated[float, Field(gt=0)] = 600.0
    """A trainer that reports nothing for so long is called stalled."""
    stall_grace_seconds: Annotated[float, Field(ge=0)] = 600.0
    """A stalled attempt that stays silent for so long is stopped, and counts as failed."""
    retry_base_seconds: Annotated[float, Field(ge=0)] = 10.0
    retry_max_seconds: Annotated[float, Field(ge=0)] = 360.0
    """First and longest delay after a failed attempt; it doubles with each that wrote no checkpoint."""
    poll_seconds: Annotated[float, Field(gt=0)] = 2.0
    """How often Ray is asked for its jobs while one of ours is active (launcher ray)."""
    request_timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Longest time one request to the API server or to Ray may take."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _kuberay_needs_an_image(self) -> Self:
        if self.launcher == "kuberay" and not self.trainer_image:
            raise ValueError("SNOWMELT_TRAINER_IMAGE: name the trainer's image, or set SNOWMELT_LAUNCHER=ray")
        return self

    @property
    def policy(self) -> Policy:
        """The settings that decisions depend on."""
        return Policy(
            image_pull_grace=timedelta(seconds=self.image_pull_grace_seconds),
            volume_grace=timedelta(seconds=self.volume_grace_seconds),
            start_grace=timedelta(seconds=self.start_grace_seconds),
            stall=timedelta(seconds=self.stall_seconds),
            stall_grace=timedelta(seconds=self.stall_grace_seconds),
            retry_base=timedelta(seconds=self.retry_base_seconds),
            retry_max=timedelta(seconds=self.retry_max_seconds),
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from SNOWMELT_* variables; an empty variable counts as absent.

        Raises:
            SettingsError: naming every variable that is unknown or wrong.
        """
        given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value != ""}
        known = {PREFIX + field.upper(): field for field in cls.model_fields}
        unknown = [f"{name}: there is no such setting" for name in given if name not in known]
        try:
            settings = cls.model_validate({known[name]: value for name, value in given.items() if name in known})
        except ValidationError as error:
            raise SettingsError("\n".join([*unknown, *_lines(error)])) from None
        if unknown:
            raise SettingsError("\n".join(unknown))
        return settings


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        name, *path = map(str, problem["loc"] or [""])
        variable = ": ".join([PREFIX + name.upper(), *([".".join(path)] if path else []), ""]) if name else ""
        lines.append(f"{variable}{problem['msg'].removeprefix('Value error, ')}")
    return lines
