"""charts/snowmelt: values.schema.json and README.md, from the comments of values.yaml."""

from __future__ import annotations

import json
from pathlib import Path

from hack.generate.values import Value, group_schema, read_values

CHART = Path(__file__).parents[2] / "charts/snowmelt"
INTRODUCTION = """\
<!-- Generated from values.yaml by `make generate`. Do not edit. -->

# Snowmelt's Helm chart

Installs the operator of [Snowmelt](../../README.md) and the kind `FineTuneJob`. It needs Kubernetes 1.30 or newer and,
for the launcher `kuberay`, [KubeRay](https://docs.ray.io/en/latest/cluster/kubernetes/index.html) 1.6 or newer.

```
helm install snowmelt charts/snowmelt --namespace snowmelt-system --create-namespace \\
  --set image.repository=REGISTRY/snowmelt-operator --set trainer.image.repository=REGISTRY/snowmelt-trainer
helm test snowmelt --namespace snowmelt-system        # trains a tiny model and deletes it again
```

Images, namespaces, high availability, upgrade and uninstall: [docs/install.md](../../docs/install.md).

## Values

A value that is not in this list, or of another type, is refused (values.schema.json).

| Value | Default | What it is for |
|---|---|---|
"""


def values_schema_json(values: tuple[Value, ...]) -> str:
    """values.schema.json. `global` is what Helm gives to a chart that is part of another."""
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart snowmelt"}
    schema |= group_schema(values)
    schema["properties"] |= {
        "global": {"type": "object", "description": "Values of the chart that this one is part of."}
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def readme_markdown(values: tuple[Value, ...]) -> str:
    """The chart's README.md."""
    rows = [_row(value) for top in values for value in top.walk()]
    return INTRODUCTION + "\n".join(rows) + "\n"


def _row(value: Value) -> str:
    default = "" if value.children else f"`{json.dumps(value.default, ensure_ascii=False)}`"
    allowed = value.annotation.get("enum")
    choice = f" One of {', '.join(f'`{each}`' for each in allowed)}." if allowed else ""
    description = (value.description + choice).replace("|", "\\|")
    return f"| `{'.'.join(value.path)}` | {default} | {description} |"


def chart_values() -> tuple[Value, ...]:
    """The values of charts/snowmelt."""
    return read_values((CHART / "values.yaml").read_text("utf-8"))
