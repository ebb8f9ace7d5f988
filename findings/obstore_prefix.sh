#!/usr/bin/env bash
# Guess: obstore.list(prefix="run-1") lists what an S3 client lists by that prefix: run-1/... and run-10/... .
# Truth: a prefix is whole segments of the path: "run-1" means run-1/ alone, and "run" nothing at all. Paths are
#        normalised on the way: a leading slash is dropped, and a double one is refused.
# Hurts: who moves from boto3 or s3fs and looks for objects by the beginning of a name: the listing is empty.
. "$(dirname "$0")/isolated.bash"
packages obstore==0.12.1

python - <<'PYTHON'
from importlib.metadata import version

import obstore
from obstore.store import MemoryStore

store = MemoryStore()
for path in ("run-1/a", "run-10/a", "/runs/b"):
    obstore.put(store, path, b"")


def names(prefix):
    return sorted(found["path"] for page in obstore.list(store, prefix=prefix) for found in page)


print(f"obstore {version('obstore')}, all: {names(None)}")
for prefix in ("run-1", "run-1/", "run"):
    print(f"prefix {prefix!r}: {names(prefix)}")
assert names(None) == ["run-1/a", "run-10/a", "runs/b"]
assert names("run-1") == names("run-1/") == ["run-1/a"]
assert names("run") == []
try:
    obstore.put(store, "run-1//b", b"")
except Exception as error:
    print(f"'run-1//b': {error}")
else:
    raise SystemExit("a double slash is taken now")
PYTHON
