"""RayCluster and RayJob of deploy/ against KubeRay's own CRDs, where `make crds` has fetched them."""

import http.server
import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kuberay
import pytest
import yaml
from custom_resources import problems
from fetch_crds import FILES, fetch_crds
from tracking_stack import DEPLOY

ROOT = DEPLOY.parent
MAKEFILE = (ROOT / "Makefile").read_text()
(VERSION,) = re.findall(r"^KUBERAY_VERSION := (\S+)", MAKEFILE, re.MULTILINE)
CRDS = ROOT / ".kuberay" / VERSION
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("ray*.yaml"))


@pytest.fixture(scope="module")
def definitions() -> dict[str, dict[str, Any]]:
    """KubeRay's own CRDs, by the kind that they define."""
    missing = [name for name in FILES if not (CRDS / name).exists()]
    if missing:
        reason = f"{', '.join(missing)} of KubeRay {VERSION} not here: `make crds` fetches them"
        if os.environ.get("HKRUN_REQUIRE_CRDS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte each
    found = [yaml.load((CRDS / name).read_text(), loader) for name in FILES]
    return {one["spec"]["names"]["kind"]: one for one in found}


def disagreements(own: dict[str, Any], theirs: dict[str, Any], place: str = "") -> list[str]:
    """Where what is written down by hand takes what a CRD refuses: fields, types, values, absences."""
    found = []
    if "type" in own and own["type"] != theirs.get("type"):
        found.append(f"{place}: {own['type']}, not {theirs.get('type')}")
    allowed = theirs.get("enum", own.get("enum", []))
    found += [f"{place}: no {value!r}" for value in own.get("enum", []) if value not in allowed]
    described = theirs.get("properties", {})
    for name, below in own.get("properties", {}).items():
        inner = f"{place}.{name}".removeprefix(".")
        if name in described:
            found += disagreements(below, described[name], inner)
        else:
            found.append(f"{inner}: not there")
        if name in theirs.get("required", []) and not (
            "default" in described[name] or name in own["required"]
        ):
            found.append(f"{inner}: must be there")
    for key in ("items", "additionalProperties"):
        if isinstance(own.get(key), dict):
            found += disagreements(own[key], theirs.get(key, {}), f"{place}.*")
    return found


# --- against the CRDs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_kuberays_own_crds_say(path: Path, definitions: dict[str, dict[str, Any]]) -> None:
    found = list(yaml.safe_load_all(path.read_text()))
    assert found
    for manifest in found:
        assert problems(manifest, definitions[manifest["kind"]]) == []


def test_a_slip_deep_in_a_pod_is_found_by_kuberays_own_crds(definitions: dict[str, dict[str, Any]]) -> None:
    (job,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "sweep" / "rayjob.yaml").read_text())
    container = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    container["imag"] = container.pop("image")
    (line,) = problems(job, definitions["RayJob"])
    assert line.endswith(".spec.containers[0].imag: unknown field")


@pytest.mark.parametrize("kind", sorted(kuberay.KINDS))
def test_what_is_written_down_by_hand_is_what_the_crds_say(
    kind: str, definitions: dict[str, dict[str, Any]]
) -> None:
    served = {version["name"]: version for version in definitions[kind]["spec"]["versions"]}
    assert disagreements(kuberay.KINDS[kind], served["v1"]["schema"]["openAPIV3Schema"]) == []


def test_a_disagreement_with_a_crd_is_named() -> None:
    own = kuberay.CLUSTER["properties"]["authOptions"]
    right = {"type": "object", "properties": {"mode": {"type": "string", "enum": ["disabled", "token"]}}}
    wrong = {"type": "object", "properties": {"mode": {"type": "string", "enum": ["disabled"]}}}
    assert disagreements(own, right) == []
    assert disagreements(own, wrong) == ["mode: no 'token'"]
    assert disagreements(own, right | {"required": ["mode"]}) == ["mode: must be there"]
    assert disagreements(own, {"type": "object"}) == ["mode: not there"]
    assert disagreements(own, {"type": "array"})[0] == ": object, not array"
    texts = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert disagreements(kuberay.TEXTS, texts, "labels") == ["labels.*: string, not integer"]


def test_one_version_of_kuberay_is_named_everywhere() -> None:
    told = (ROOT / "docs" / "deploy.md").read_text()
    assert re.findall(r"kuberay/kuberay-operator --version (\S+)", told) == [VERSION]
    assert ".kuberay/$(KUBERAY_VERSION)\n" in MAKEFILE
    assert ".kuberay/" in (ROOT / ".gitignore").read_text().split()


# --- fetching -----------------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and does not write about it."""

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The folder with the CRDs of release 1.2.3, and the address of the repository, on loopback."""
    folder = tmp_path / "repository"
    crds = folder / "raw" / "v1.2.3" / "helm-chart" / "kuberay-operator" / "crds"
    crds.mkdir(parents=True)
    for name in FILES:
        (crds / name).write_text(f"kind: CustomResourceDefinition\nmetadata: {{name: {name}}}\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield crds, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_crds_are_fetched_once(repository: tuple[Path, str], tmp_path: Path) -> None:
    crds, address = repository
    folder = tmp_path / "into" / "1.2.3"
    fetch_crds(folder, version="1.2.3", repository=address)
    expected = {name: (crds / name).read_bytes() for name in FILES}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    (crds / FILES[0]).unlink()
    fetch_crds(folder, version="1.2.3", repository=address)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


def test_a_release_without_them_and_a_page_in_their_place_are_said_and_leave_nothing(
    repository: tuple[Path, str], tmp_path: Path
) -> None:
    crds, address = repository
    with pytest.raises(LookupError, match=r"rayclusters\.yaml: 127\.0\.0\.1:\d+ answers 404 File not found$"):
        fetch_crds(tmp_path / "into", version="9.9.9", repository=address)
    (crds / FILES[1]).write_text("<html>Please log in to this network</html>")
    with pytest.raises(LookupError, match=r"rayjobs\.yaml: what 127.* sends is no CustomResourceDefinition$"):
        fetch_crds(tmp_path / "into", version="1.2.3", repository=address)
    assert not (tmp_path / "into").exists()


def test_a_host_that_does_not_answer_is_named_in_one_line(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        address = f"http://127.0.0.1:{server.server_port}"  # nobody listens here from now on
    with pytest.raises(LookupError, match=r"^127\.0\.0\.1:\d+, where .* does not answer: .* not fetched$"):
        fetch_crds(tmp_path / "into", version="1.2.3", repository=address)
    assert not (tmp_path / "into").exists()
