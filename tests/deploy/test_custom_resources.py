"""The validator of custom resources, on a definition in the form that controller-gen writes."""

import copy
from typing import Any

import pytest
import yaml
from custom_resources import problems

DEFINITION = yaml.safe_load(r"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: kilns.pottery.example
spec:
  group: pottery.example
  names: {kind: Kiln, listKind: KilnList, plural: kilns, singular: kiln}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            required: [glaze, shelves, template]
            properties:
              glaze: {type: string, enum: [matte, gloss]}
              shelves: {type: integer, format: int32, default: 2, minimum: 0, exclusiveMinimum: true}
              cone: {type: string, default: "06"}
              size:
                anyOf:
                - type: integer
                - type: string
                pattern: ^[0-9]+(Ki|Mi)?$
                x-kubernetes-int-or-string: true
              port: {x-kubernetes-int-or-string: true}
              labels:
                type: object
                additionalProperties: {type: string}
              tags:
                type: array
                items: {type: string}
                x-kubernetes-list-type: set
              cooled: {type: string, format: date-time, nullable: true}
              seal: {type: string, format: byte}
              notes:
                type: object
                x-kubernetes-preserve-unknown-fields: true
                properties:
                  author:
                    type: object
                    properties:
                      name: {type: string}
              empty: {type: object}
              either:
                type: object
                properties:
                  wood: {type: string}
                  gas: {type: string}
                oneOf:
                - required: [wood]
                - required: [gas]
              tray:
                type: object
                x-kubernetes-embedded-resource: true
                properties:
                  spec:
                    type: object
                    properties:
                      depth: {type: integer}
              template:
                type: object
                properties:
                  metadata:
                    type: object
                    properties:
                      labels:
                        type: object
                        additionalProperties: {type: string}
                  spec:
                    type: object
                    required: [containers]
                    properties:
                      containers:
                        type: array
                        x-kubernetes-list-type: map
                        x-kubernetes-list-map-keys: [name]
                        items:
                          type: object
                          required: [name]
                          properties:
                            name: {type: string}
                            image: {type: string}
                            ports:
                              type: array
                              x-kubernetes-list-type: map
                              x-kubernetes-list-map-keys: [containerPort, protocol]
                              items:
                                type: object
                                required: [containerPort]
                                properties:
                                  containerPort: {type: integer, format: int32}
                                  protocol: {type: string, default: TCP}
          status:
            type: object
            properties:
              temperature: {type: number}
  - name: v1alpha1
    served: false
    storage: false
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
""")
KILN = yaml.safe_load("""
apiVersion: pottery.example/v1
kind: Kiln
metadata: {name: small, labels: {room: east}}
spec:
  glaze: matte
  shelves: 3
  size: 4Mi
  port: http
  labels: {owner: ada}
  tags: [new, loud]
  cooled: null
  seal: aGtydW4=
  notes: {author: {name: ada}, anything: [1, {at: all}]}
  empty: {}
  either: {gas: propane}
  tray: {apiVersion: v1, kind: Tray, metadata: {name: top}, spec: {depth: 3}}
  template:
    metadata: {labels: {app: kiln}}
    spec:
      containers:
      - name: heater
        image: heater:1
        ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
""")
ABSENT = object()


def changed(place: str, value: object) -> dict[str, Any]:
    """The right resource with one value in place of another, or without it."""
    kiln = copy.deepcopy(KILN)
    *way, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    inner: Any = kiln
    for step in way:
        inner = inner[step]
    if value is ABSENT:
        del inner[last]
    else:
        inner[last] = value
    return kiln


def test_a_right_resource_has_no_problem() -> None:
    assert problems(KILN, DEFINITION) == []


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        # Fields that nothing describes, at every depth.
        ("specs", {}, "specs: unknown field"),
        ("metadata.label", {}, "metadata.label: unknown field"),
        ("spec.glace", "matte", "spec.glace: unknown field"),
        ("spec.glace", None, "spec.glace: unknown field"),
        ("spec.empty.anything", 1, "spec.empty.anything: unknown field"),
        ("spec.template.metadata.label", {}, "spec.template.metadata.label: unknown field"),
        ("spec.template.spec.container", [], "spec.template.spec.container: unknown field"),
        (
            "spec.template.spec.containers.0.ports.1.hostPrt",
            1,
            "spec.template.spec.containers[0].ports[1].hostPrt: unknown field",
        ),
        ("spec.notes.author.nam", "x", "spec.notes.author.nam: unknown field"),
        ("spec.tray.spec.dept", 1, "spec.tray.spec.dept: unknown field"),
        ("spec.tray.metadata.label", {}, "spec.tray.metadata.label: unknown field"),
        # Types, and what a value may be.
        ("spec.shelves", "3", "spec.shelves: '3' is not of type 'integer'"),
        ("spec.shelves", True, "spec.shelves: True is not of type 'integer'"),
        ("spec.shelves", 0, "spec.shelves: 0 is less than or equal to the minimum of 0"),
        ("spec.shelves", 2**31, "spec.shelves: 2147483648 is not a 'int32'"),
        ("spec.glaze", "shiny", "spec.glaze: 'shiny' is not one of ['matte', 'gloss']"),
        ("spec.labels.owner", 7, "spec.labels.owner: 7 is not of type 'string'"),
        ("metadata.labels.room", 7, "metadata.labels.room: 7 is not of type 'string'"),
        ("spec.cooled", "yesterday", "spec.cooled: 'yesterday' is not a 'date-time'"),
        ("spec.cooled", "2026-11-22T10:00:00", "spec.cooled: '2026-11-22T10:00:00' is not a 'date-time'"),
        ("spec.seal", "no base64", "spec.seal: 'no base64' is not a 'byte'"),
        ("spec.size", "4 MiB", "spec.size: '4 MiB' does not match '^[0-9]+(Ki|Mi)?$'"),
        ("spec.port", 1.5, "spec.port: 1.5 is not of type 'integer', 'string'"),
        ("spec.tags", ["new", "new"], "spec.tags: ['new', 'new'] has non-unique elements"),
        ("spec.tags", [None], "spec.tags[0]: None is not of type 'string'"),
        ("spec.either", {}, "spec.either: {} is not valid under any of the given schemas"),
        (
            "spec.template.spec.containers",
            [{"name": "heater"}, {"name": "heater"}],
            "spec.template.spec.containers: {'name': 'heater'} is there twice",
        ),
        (
            "spec.template.spec.containers.0.ports.1.protocol",
            "TCP",
            "spec.template.spec.containers[0].ports: {'containerPort': 80, 'protocol': 'TCP'} is there twice",
        ),
        # What must be there.
        ("spec", ABSENT, "resource: 'spec' is a required property"),
        ("spec.glaze", ABSENT, "spec: 'glaze' is a required property"),
        ("spec.glaze", None, "spec: 'glaze' is a required property"),
        (
            "spec.template.spec.containers.0.name",
            ABSENT,
            "spec.template.spec.containers[0]: 'name' is a required property",
        ),
        ("spec.tray.kind", ABSENT, "spec.tray: 'kind' is a required property"),
        ("metadata.name", ABSENT, "metadata: 'name' is a required property"),
        # Which resource it is.
        ("kind", "Oven", "kind: 'Oven' is not 'Kiln'"),
        (
            "apiVersion",
            "pottery.example/v1alpha1",
            "apiVersion: 'pottery.example/v1alpha1' is not served: pottery.example/v1",
        ),
    ],
)
def test_a_wrong_resource_is_refused_with_its_place(place: str, value: object, line: str) -> None:
    assert problems(changed(place, value), DEFINITION) == [line]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("spec.size", 4),
        ("spec.port", 8080),
        ("spec.shelves", ABSENT),  # required, and has a default
        ("spec.shelves", None),  # a null that may not be is dropped before defaults are put in
        ("spec.cone", None),
        ("spec.labels.owner", None),
        ("spec.cooled", "2026-11-22T10:00:00Z"),
        ("spec.notes", {"nothing": {"of": "this is described"}}),
        ("spec.notes.more", None),
        ("status", {"temperature": 900}),
        ("metadata.annotations", {"a": "b"}),
    ],
)
def test_what_an_api_server_takes_is_right(place: str, value: object) -> None:
    assert problems(changed(place, value), DEFINITION) == []


def test_every_problem_is_named_and_the_resource_is_left_as_it_is() -> None:
    kiln = changed("spec.shelves", None)
    kiln["spec"] |= {"glaze": "shiny", "door": "left", "fan": "on"}
    before = copy.deepcopy(kiln)
    assert problems(kiln, DEFINITION) == [
        "spec.door: unknown field",
        "spec.fan: unknown field",
        "spec.glaze: 'shiny' is not one of ['matte', 'gloss']",
    ]
    assert kiln == before


def test_what_a_definition_asks_of_a_name_counts() -> None:
    definition = copy.deepcopy(DEFINITION)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"]["properties"] = {"name": {"type": "string", "maxLength": 4}}
    assert problems(KILN, definition) == ["metadata.name: 'small' is too long"]
