"""What KubeRay's own kinds take, as far as deploy/ uses it.

No package carries KubeRay's CRDs. Where `make crds` cannot fetch them, manifests are checked by what is
written down here; where it could, test_kuberay.py sets the manifests and this file against the CRDs. Names,
types and enumerations are those of the field reference of release 1.7.0 (ray.io/v1; `authOptions` is there
from 1.5.1 on). What belongs to features that deploy/ leaves alone (fault-tolerant GCS, history server, TLS,
upgrades, KubeRay's own network policies) is left out, and so refused. More is asked than by the CRDs where
something would be refused only later: an entry point, counts that are not negative, values of
`serviceType`, `imagePullPolicy` and `submissionMode`.
Nine tenths of the CRDs are Kubernetes' own pod templates; those are checked with Kubernetes' own schemas.
"""

from typing import Any

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
POD_TEMPLATE = {"type": "object", "required": ["spec"]}
# Kubernetes checks these where they stand in a pod template; here their names are enough.
RESOURCES = {"type": "object", "propertyNames": {"enum": ["limits", "requests"]}}


def _fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


AUTOSCALER = _fields(
    version={"enum": ["v1", "v2"]},
    idleTimeoutSeconds=COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    image={"type": "string"},
    imagePullPolicy={"enum": ["Always", "Never", "IfNotPresent"]},
    resources=RESOURCES,
    securityContext={"type": "object"},
    env={"type": "array"},
    envFrom={"type": "array"},
    volumeMounts={"type": "array"},
)
HEAD = _fields(
    ("template",),
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]},
    headService={"type": "object"},
    enableIngress={"type": "boolean"},
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template=POD_TEMPLATE,
)
WORKERS = _fields(
    ("groupName", "template"),
    groupName={"type": "string"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts={"type": "integer", "minimum": 1},
    idleTimeoutSeconds=COUNT,
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template=POD_TEMPLATE,
)
CLUSTER = _fields(
    ("headGroupSpec",),
    rayVersion={"type": "string"},
    authOptions=_fields(mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=TEXTS,
    suspend={"type": "boolean"},
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
JOB = _fields(
    ("entrypoint",),
    entrypoint={"type": "string"},
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources={"type": "string"},
    runtimeEnvYAML={"type": "string"},
    jobId={"type": "string"},
    metadata=TEXTS,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterPodTemplate=POD_TEMPLATE,
    submitterConfig=_fields(backoffLimit=COUNT),
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    ttlSecondsAfterFinished=COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    suspend={"type": "boolean"},
    clusterSelector=TEXTS,
    rayClusterSpec=CLUSTER,
)


def _kind(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": name},
        metadata={"type": "object", "required": ["name"]},
        spec=spec,
    )


KINDS = {"RayCluster": _kind("RayCluster", CLUSTER), "RayJob": _kind("RayJob", JOB)}


def pod_templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """All pod templates of a RayCluster or a RayJob."""
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    own = [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return own + [group["template"] for group in groups]
