"""Fetches KubeRay's CRDs, which no package carries: fetch_crds.py VERSION FOLDER, as `make crds` calls it.

Needs Python alone: it runs before there is an environment.
"""

import http.client
import sys
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = "https://github.com/ray-project/kuberay"
FILES = ("ray.io_rayclusters.yaml", "ray.io_rayjobs.yaml")
TIMEOUT_S = 30


def fetch_crds(folder: Path, *, version: str, repository: str = REPOSITORY) -> None:
    """Puts FILES of a release into a folder: all of them or none. What is there already is not fetched again.

    Raises:
        LookupError: They could not be had, and why, in one line.
    """
    if all((folder / name).exists() for name in FILES):
        return
    texts = {
        name: _text(f"{repository}/raw/v{version}/helm-chart/kuberay-operator/crds/{name}") for name in FILES
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        part = folder / f"{name}.part"
        part.write_bytes(text)
        part.replace(folder / name)


def _text(address: str) -> bytes:
    host = address.split("/")[2]
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            text: bytes = answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise LookupError(f"{address}: {host} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = f"{host}, where KubeRay's CRDs are, does not answer: they were not fetched"
        raise LookupError(reason) from error
    if b"kind: CustomResourceDefinition" not in text:
        raise LookupError(f"{address}: what {host} sends is no CustomResourceDefinition")
    return text


if __name__ == "__main__":
    _, wanted, place = sys.argv
    try:
        fetch_crds(Path(place), version=wanted)
    except LookupError as error:
        sys.exit(str(error))
