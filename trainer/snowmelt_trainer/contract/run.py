"""`RunConfig`: everything one attempt of a training run is told.

The operator (or `snowmelt run`) writes it, the trainer reads it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from snowmelt_trainer.contract.backbone import Backbone
from snowmelt_trainer.contract.base import Contract, Rule
from snowmelt_trainer.contract.data import Data
from snowmelt_trainer.contract.optimization import Optimization
from snowmelt_trainer.contract.output import Output
from snowmelt_trainer.contract.unfreezing import Unfreezing

CONFIG_ENV = "SNOWMELT_RUN_CONFIG"
"""Environment variable that holds the RunConfig as JSON, where `--config FILE` is not given."""
TOKEN_ENV = "SNOWMELT_PROGRESS_TOKEN"
"""Environment variable that holds the bearer token of the progress endpoint, where progress.tokenFile is not given."""


class JobIdentity(Contract):
    """Which job, and which attempt at it, this is."""

    namespace: str
    name: str
    uid: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]
    """metadata.uid of the FineTuneJob; state of different uids is never mixed."""
    attempt: Annotated[int, Field(ge=1)] = 1
    """Attempts resume from the newest checkpoint of the same uid."""


class ProgressEndpoint(Contract):
    """Where the driver sends Progress."""

    url: str
    """POST here; the whole URL, http or https."""
    token_file: str | None = None
    """File with the bearer token; when absent it is read from SNOWMELT_PROGRESS_TOKEN."""
    ca_file: str | None = None
    """PEM file of the authority that signed the endpoint's certificate; the system's when absent."""


WorkerCount = Annotated[int, Field(ge=1, le=1024)]


class Elastic(Contract):
    """Bounds between which the number of workers may change while the job runs."""

    min: WorkerCount
    """Fewest workers: the job starts, and after a loss goes on, as soon as there are so many."""
    max: WorkerCount
    """Most workers: the job takes in new ones until there are so many."""

    rules = (
        Rule(
            field="min",
            holds=lambda self: self.min <= self.max,
            cel="self.min <= self.max",
            message="spec.workers.elastic.min must not be larger than max: it is the fewest workers, and max the most",
        ),
    )


class WorkerGroup(Contract):
    """The Ray Train workers."""

    replicas: WorkerCount = 1
    """How many there are, where `elastic` does not say otherwise."""
    elastic: Elastic | None = None
    """Bounds for a number of workers that changes."""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """CPUs that each worker reserves in Ray."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs that each worker reserves in Ray; 0 trains on the CPU."""

    @property
    def fewest(self) -> int:
        """The least number of workers that the run trains with."""
        return self.elastic.min if self.elastic else self.replicas

    @property
    def most(self) -> int:
        """The largest number of workers that the run trains with."""
        return self.elastic.max if self.elastic else self.replicas


class RunConfig(Contract):
    """One attempt of one run, fully resolved: it holds every default that was applied."""

    job: JobIdentity
    backbone: Backbone
    data: Data
    unfreezing: Unfreezing = Unfreezing()
    optimization: Optimization = Optimization()
    output: Output
    workers: WorkerGroup = WorkerGroup()
    progress: ProgressEndpoint | None = None
    """Absent when nobody listens, as under `snowmelt run`."""
    volumes_root: str = "/mnt/snowmelt"
    """Folder under which pvc://CLAIM/path is found as CLAIM/path."""
