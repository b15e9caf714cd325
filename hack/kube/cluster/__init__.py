"""A real Kubernetes cluster on this machine: control plane, nodes with kubelets and containers, KubeRay's operator.

Each node is a machine of its own to the programs in it (network, mounts, process ids), joined to the control plane by a
bridge that has no way out. For Linux, with root. `python -m hack.kube cluster-up` and `cluster-down`.
"""

from hack.kube.cluster.cluster import Cluster
from hack.kube.cluster.requirements import RequirementsError

__all__ = ["Cluster", "RequirementsError"]
