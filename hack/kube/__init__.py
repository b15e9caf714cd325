"""A real Kubernetes control plane on loopback: etcd and kube-apiserver, without root or containers."""

from hack.kube.binaries import Binaries, BinariesMissingError, find_binaries, kuberay_crds
from hack.kube.controlplane import ControlPlane, ControlPlaneError

__all__ = ["Binaries", "BinariesMissingError", "ControlPlane", "ControlPlaneError", "find_binaries", "kuberay_crds"]
