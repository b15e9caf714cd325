"""Ways to set the chart's values that must work."""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]

VALUES: dict[str, Values] = {
    "the defaults": {},
    "one replica": {"replicas": 1},
    "a list of namespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "an existing Ray cluster": {
        "launcher": {"type": "ray", "ray": {"address": "https://ray.example:8265/path", "tokenSecret": "ray"}},
        "progress": {"url": "https://snowmelt.example/progress", "existingKeySecret": "own-key"},
        "networkPolicy": {"progressFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
    },
    "nothing that can be left out": {
        "crds": {"enabled": False},
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
    },
    "everything": {
        "nameOverride": "melt",
        "commonLabels": {"team": "vision"},
        "image": {"repository": "registry.example/operator", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "replicas": 3,
        "workers": 16,
        "logLevel": "DEBUG",
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"},
            {"name": "SNOWMELT_RESYNC_SECONDS", "value": "60"},
        ],
        "trainer": {
            "image": {"repository": "registry.example/trainer", "tag": "7", "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "registry"}],
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "serviceAccountName": "trainers",
            "priorityClassName": "training",
            "rayVersion": "2.60.1",
        },
        "progress": {"port": 9000},
        "health": {"port": 9001},
        "listenAddress": "::",
        "networkPolicy": {
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": {
                "enabled": True,
                "to": [{"ports": [{"port": 6443}], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}],
            },
        },
        "serviceAccount": {"name": "melting", "annotations": {"example.com/role": "none"}},
        "podLabels": {"tier": "control"},
        "podAnnotations": {"example.com/checked": "yes"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        "global": {"of": "a chart that this one is part of"},
    },
}
