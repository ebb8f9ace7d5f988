#!/usr/bin/env bash
# Guess: two `ray.init()` on one machine start two clusters that know nothing of each other, each as quickly as alone:
#        ports that are taken are passed over.
# Truth: the agent of the dashboard, which starts also with `include_dashboard=False`, wants port 52365. Where the first
#        cluster has it, it tries six times in 3.5 s, goes on without, and no worker of the second starts before.
# Hurts: two studies, or two tests, at a time on one machine: each start of all but one is seconds longer.
. "$(dirname "$0")/isolated.bash"
packages "ray[default]==2.60.0"

cat >start.py <<'PYTHON'
import glob
import sys
import time

import ray

began = time.monotonic()
context = ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
ray.get(ray.remote(lambda: 0).remote())
print(f"{time.monotonic() - began:.1f}", context.address_info["session_dir"], flush=True)
sys.stdin.read()
PYTHON
RAY_TMPDIR="$(mktemp -d -p /tmp)"
export RAY_TMPDIR
trap 'rm -rf "$RAY_TMPDIR" "$folder"' EXIT

python -W ignore - <<'PYTHON' 2>"$folder/log"
import importlib.metadata
import pathlib
import subprocess
import sys


def start():
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "start.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read(cluster):
    seconds, session = cluster.stdout.readline().split()
    told = (pathlib.Path(session) / "logs/dashboard_agent.log").read_text()
    return float(seconds), told.count("Failed to bind to port 52365"), "failed to bind after" in told


print("ray", importlib.metadata.version("ray"))
clusters = [start()]
print("  the first:  %.1f s until its first task, %d vain tries, given up: %s" % (first := read(clusters[0])))
clusters.append(start())
print("  the second: %.1f s until its first task, %d vain tries, given up: %s" % (second := read(clusters[1])))
for cluster in clusters:
    cluster.communicate()
assert first[1:] == (0, False), "changed, or another cluster runs on this machine"
assert second[1] >= 5 and second[2] and second[0] > 3.5
print("As described: the second waits for the first one's port.")
PYTHON
