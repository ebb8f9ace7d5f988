"""Custom resources against the definition of their kind, as strictly as `kubectl apply --validate=strict`.

A CustomResourceDefinition (apiextensions.k8s.io/v1) describes its resources in OpenAPI's schemas with
additions of Kubernetes' own. They are turned into JSON schemas here, with what an API server does around
them: nulls that a field may not have are dropped, defaults stand in for what is missing, and a field that
nothing describes is refused. Not looked at: rules in CEL (`x-kubernetes-validations`), and formats that
FORMATS does not have.
"""

import base64
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import jsonschema

# What means the same in both. anyOf, allOf, oneOf and not only restrict values, so nothing is closed there.
SHARED = (
    *("enum", "pattern", "format", "minLength", "maxLength", "multipleOf", "required"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
    *("allOf", "anyOf", "oneOf", "not"),
    "x-kubernetes-list-map-keys",
)
FORMATS = jsonschema.FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
OBJECT_META = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("name", "generateName", "namespace"), TEXT),
        **dict.fromkeys(("labels", "annotations"), TEXTS),
        "finalizers": {"type": "array", "items": TEXT},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
    },
    "additionalProperties": False,  # what only an API server sets is not for a manifest
}


@FORMATS.checks("int32")
def _is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@FORMATS.checks("int64")
def _is_int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@FORMATS.checks("byte", raises=ValueError)
def _is_base64(value: object) -> bool:
    return not isinstance(value, str) or base64.b64decode(value, validate=True) is not None


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def _have_own_keys(
    validator: object, keys: list[str], items: object, schema: object
) -> Iterator[jsonschema.ValidationError]:
    """`x-kubernetes-list-map-keys`: no two items of a list have the same values under all of the keys."""
    seen = []
    for item in items if isinstance(items, list) else []:
        own = {key: item.get(key) for key in keys} if isinstance(item, dict) else None
        if own is not None and own in seen:
            yield jsonschema.ValidationError(f"{own} is there twice")
        seen.append(own)


# Draft 4 is the one whose exclusiveMinimum is a yes or no, as in OpenAPI 3.0.
Validator = jsonschema.validators.extend(
    jsonschema.Draft4Validator, {"x-kubernetes-list-map-keys": _have_own_keys}
)


def json_schema(node: dict[str, Any]) -> dict[str, Any]:
    """What an OpenAPI schema of a definition says, as a JSON schema of draft 4 for Validator."""
    schema = {key: node[key] for key in SHARED if key in node}
    types = [node["type"]] if "type" in node else []
    if node.get("x-kubernetes-int-or-string"):
        types = ["integer", "string"]
    if types:
        schema["type"] = [*types, "null"] if node.get("nullable") else types
    if node.get("x-kubernetes-list-type") == "set":
        schema["uniqueItems"] = True
    if "items" in node:
        schema["items"] = json_schema(node["items"])
    schema["properties"] = {name: json_schema(below) for name, below in node.get("properties", {}).items()}
    others = node.get("additionalProperties", False)
    if isinstance(others, dict):
        schema["additionalProperties"] = json_schema(others)
    elif node.get("type") == "object":
        schema["additionalProperties"] = others or node.get("x-kubernetes-preserve-unknown-fields", False)
    if node.get("x-kubernetes-embedded-resource"):
        described = schema["properties"].get("metadata", {}) | {"additionalProperties": True}
        schema["properties"] |= {"apiVersion": TEXT | {"minLength": 1}, "kind": TEXT | {"minLength": 1}}
        schema["properties"]["metadata"] = {"allOf": [OBJECT_META, described]}
        schema["required"] = sorted({"apiVersion", "kind", *schema.get("required", [])})
    return schema


def completed(value: Any, node: dict[str, Any]) -> Any:
    """A value without the nulls that its schema does not allow, and with the schema's defaults."""
    if isinstance(value, list):
        return [completed(item, node.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    described = node.get("properties", {})
    others = node.get("additionalProperties")
    unknown = others if isinstance(others, dict) else {"nullable": True}
    done = {}
    for name, below in value.items():
        inner = described.get(name, unknown)
        if below is not None or inner.get("nullable"):
            done[name] = completed(below, inner)
    for name, inner in described.items():
        if name not in done and "default" in inner:
            done[name] = completed(inner["default"], inner)
    return done


def problems(manifest: dict[str, Any], definition: dict[str, Any]) -> list[str]:
    """What an API server that has a definition would refuse in a manifest.

    Returns:
        A line for each problem, `where: what`, sorted; none where the manifest is right.
    """
    spec = definition["spec"]
    kind = spec["names"]["kind"]
    served = {
        f"{spec['group']}/{version['name']}": version["schema"]["openAPIV3Schema"]
        for version in spec["versions"]
        if version["served"]
    }
    if manifest.get("kind") != kind:
        return [f"kind: {manifest.get('kind')!r} is not {kind!r}"]
    if manifest.get("apiVersion") not in served:
        return [f"apiVersion: {manifest.get('apiVersion')!r} is not served: {', '.join(served)}"]
    node = served[manifest["apiVersion"]] | {"x-kubernetes-embedded-resource": True}
    named = {"required": ["metadata"], "properties": {"metadata": {"required": ["name"]}}}
    validator = Validator({"allOf": [json_schema(node), named]}, format_checker=FORMATS)
    return sorted(
        line for error in validator.iter_errors(completed(manifest, node)) for line in _lines(error)
    )


def _lines(error: jsonschema.ValidationError) -> Iterator[str]:
    place = error.json_path.removeprefix("$").removeprefix(".")
    if error.validator == "additionalProperties":
        for name in error.instance.keys() - error.schema.get("properties", {}).keys():
            yield f"{place}.{name}: unknown field".removeprefix(".")
    else:
        yield f"{place or 'resource'}: {error.message}"
