"""`python -m hack.generate [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def generated() -> Iterator[tuple[str, str]]:
    """Every generated file: its path from the repository's root, and what it should hold."""
    from hack.generate.architectures import catalog_json  # noqa: PLC0415 (the types below read the catalog when imported)

    yield "trainer/snowmelt_trainer/contract/architectures.json", catalog_json()
    from hack.generate.chart import chart_values, readme_markdown, values_schema_json  # noqa: PLC0415
    from hack.generate.crd import crd_yaml  # noqa: PLC0415
    from hack.generate.rbac import local_rbac_yaml  # noqa: PLC0415
    from hack.generate.reasons import reasons_markdown  # noqa: PLC0415
    from hack.generate.reference import reference_markdown  # noqa: PLC0415

    crd = crd_yaml()
    yield "crds/snowmelt.dev_finetunejobs.yaml", crd
    yield "charts/snowmelt/files/crds/snowmelt.dev_finetunejobs.yaml", crd
    values = chart_values()
    yield "charts/snowmelt/values.schema.json", values_schema_json(values)
    yield "charts/snowmelt/README.md", readme_markdown(values)
    yield "hack/kube/rbac.yaml", local_rbac_yaml()
    yield "docs/api.md", reference_markdown()
    yield "docs/reasons.md", reasons_markdown()


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Writes the stale files, or names them; the exit status is 1 when --check finds one."""
    parser = argparse.ArgumentParser(prog="python -m hack.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check: bool = parser.parse_args(arguments).check
    stale = 0
    for name, text in generated():
        path = root / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"{name} is stale: run `make generate`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
