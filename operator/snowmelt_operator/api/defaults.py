"""What the operator's settings add to the `spec.runtime` of every job, in the same terms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from snowmelt_operator.api.names import DnsName
from snowmelt_operator.api.runtime import EnvVar, LabelKey, LabelValue, LocalObjectReference, Runtime, Toleration
from snowmelt_trainer.contract.base import Contract


class PodDefaults(Contract):
    """What a platform team wants of the pods of all jobs. What a job says itself goes before it."""

    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    """When the trainer's image is pulled; as Kubernetes decides by the tag when empty."""
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] = ()
    """Secrets for pulling the image, in each job's namespace; beside the job's own."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment variables; one that a job sets is the job's."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = {}
    """Labels that a node must have; one that a job names has the job's value."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that the pods tolerate, beside the job's own."""
    service_account_name: DnsName = ""
    """The pods' service account, where a job names none."""
    priority_class_name: DnsName = ""
    """The pods' priority class, where a job names none."""

    def onto(self, runtime: Runtime) -> Runtime:
        """The job's runtime with what it leaves open filled in."""
        named = {variable.name for variable in runtime.env}
        env = [variable for variable in self.env if variable.name not in named]
        tolerations = [each for each in self.tolerations if each not in runtime.tolerations]
        secrets = [each for each in self.image_pull_secrets if each not in runtime.image_pull_secrets]
        return runtime.model_copy(
            update={
                "env": (*env, *runtime.env),
                "node_selector": {**self.node_selector, **runtime.node_selector},
                "tolerations": (*tolerations, *runtime.tolerations),
                "image_pull_secrets": (*secrets, *runtime.image_pull_secrets),
                "service_account_name": runtime.service_account_name or self.service_account_name,
                "priority_class_name": runtime.priority_class_name or self.priority_class_name,
            }
        )
