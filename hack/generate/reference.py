"""docs/api.md: the API reference, from the same schema as the CRD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from hack.generate.enumdocs import member_docs
from hack.generate.structural import INT_OR_STRING, VALIDATIONS, structural_schema, validations
from snowmelt_operator.api.conditions import ConditionType
from snowmelt_operator.api.status import FineTuneJobStatus
from snowmelt_operator.api.v1alpha1 import API_VERSION, KIND, NAME_RULES, FineTuneJob, FineTuneJobSpec
from snowmelt_trainer.contract.reasons import Reason

Schema = dict[str, Any]
LONG_ENUM = 12
INTRODUCTION = f"""\
<!-- Generated from snowmelt_operator.api and snowmelt_trainer.contract by `make generate`. Do not edit. -->

# {KIND}, {API_VERSION}

{FineTuneJob.__doc__}

`backbone.architecture`, `data.train.uri` and `output.uri` make a job; everything else has a default:

```yaml
apiVersion: {API_VERSION}
kind: {KIND}
metadata:
  name: shoes
spec:
  backbone: {{architecture: resnet50}}
  data:
    train: {{uri: "pvc://shoes/train"}}
  output: {{uri: "pvc://models/shoes"}}
```

`kubectl explain finetunejob.spec --recursive` shows the same in a terminal, and `snowmelt validate FILE` finds every
mistake in a manifest before it is applied. `kubectl` knows the kind as `finetunejobs` and `ftj`.
"""


def reference_markdown() -> str:
    """The whole document."""
    parts = [
        INTRODUCTION,
        _rules(validations(NAME_RULES, under=".metadata")),
        *_objects("spec", structural_schema(FineTuneJobSpec, path="spec", with_defaults=True)),
        *_objects("status", structural_schema(FineTuneJobStatus, path="status", with_defaults=False)),
        "## Conditions\n",
        "`kubectl wait --for=condition=Complete finetunejob/NAME` waits for one of them.\n",
        _table(("Condition", "When True"), member_docs(ConditionType).items()),
        "## Why a run ended\n",
        "Reasons that the trainer gives; they become the reason of condition Complete or Failed. Where another\n"
        "attempt can help, it is made, up to `spec.backoffLimit` times. The operator's own reasons are in"
        " [reasons.md](reasons.md).\n",
        _table(("Reason", "Meaning", "Retried"), _reasons()),
    ]
    return "\n".join(part for part in parts if part)


def _reasons() -> Iterator[tuple[str, str, str]]:
    for value, meaning in member_docs(Reason).items():
        yield value, meaning, "yes" if Reason(value).retryable else ""


def _objects(path: str, schema: Schema) -> Iterator[str]:
    """A section for the object at `path`, then one for each object within it, in the order of the fields."""
    required = set(schema.get("required", ()))
    properties: Schema = schema["properties"]
    yield f"## `{path}`\n"
    yield schema["description"].partition("\n")[0] + "\n"
    rows = (
        (_name(path, name, field), _type(field), _default(field, required=name in required), _description(field))
        for name, field in properties.items()
    )
    yield _table(("Field", "Type", "Default", "Description"), rows)
    yield _rules(schema.get(VALIDATIONS, []))
    for name, field in properties.items():
        if "properties" in field:
            yield from _objects(f"{path}.{name}", field)
        elif "properties" in field.get("items", {}):
            yield from _objects(f"{path}.{name}[]", field["items"])


def _name(path: str, name: str, field: Schema) -> str:
    if "properties" in field:
        return f"[`{name}`](#{_anchor(f'{path}.{name}')})"
    if "properties" in field.get("items", {}):
        return f"[`{name}`](#{_anchor(f'{path}.{name}[]')})"
    return f"`{name}`"


def _anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_")


def _type(field: Schema) -> str:
    if INT_OR_STRING in field:
        return "quantity"
    match field["type"]:
        case "object" if "properties" in field:
            return "object"
        case "object":
            return f"map of {_type(field['additionalProperties'])}, at most {field['maxProperties']}"
        case "array":
            items = "object" if "properties" in field["items"] else _type(field["items"])
            return f"list of {items}, {_range(field, 'minItems', 'maxItems')}"
        case "string":
            return _string_type(field)
        case kind:
            bounds = _range(field, "minimum", "maximum")
            return f"{kind}, {bounds}" if bounds else str(kind)


def _string_type(field: Schema) -> str:
    if len(field.get("enum", ())) > LONG_ENUM:
        return f"one of {len(field['enum'])} names"
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    if "format" in field:
        return "time (RFC 3339)"
    return f"string, at most {field['maxLength']:,} characters"


def _range(field: Schema, lowest: str, highest: str) -> str:
    words = []
    if lowest in field:
        words.append(f"{'above' if field.get('exclusiveMinimum') else 'at least'} {_number(field[lowest])}")
    if highest in field:
        words.append(f"{'below' if field.get('exclusiveMaximum') else 'at most'} {_number(field[highest])}")
    return ", ".join(words)


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def _default(field: Schema, *, required: bool) -> str:
    if required:
        return "**required**"
    match field.get("default"):
        case None | {} | [] | "":
            return ""
        case bool() as flag:
            return f"`{str(flag).lower()}`"
        case list() as items:
            return f"`[{', '.join(items)}]`"
        case value:
            return f"`{value}`"


def _description(field: Schema) -> str:
    """The description, with a line for each enum value that has one."""
    first, *values = field["description"].split("\n")
    lines = [f"`{value}`: {meaning}" for value, _, meaning in (line.partition(": ") for line in values)]
    return "<br>".join([first, *lines])


def _rules(rules: list[Schema]) -> str:
    """What is refused, as a list."""
    if not rules:
        return ""
    return "Refused by rule:\n\n" + "".join(
        f"- `{rule['fieldPath'].lstrip('.')}`: {rule['message']}\n" for rule in rules
    )


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
