#!/usr/bin/env bash
# Guess: `ray.init(include_dashboard=False)` starts no dashboard, and does not wait for one.
# Truth: the dashboard's process is started all the same, without its pages and with the one module that tells Ray's makers
#        of the cluster's use, also where RAY_USAGE_STATS_ENABLED=0 leaves it nothing to do. The raylet, and with it every
#        worker, is started only once that process has imported all it needs and has answered.
# Hurts: tests and short studies that start a cluster each: about a second of one core, and of waiting, per start.
. "$(dirname "$0")/isolated.bash"
packages "ray[default]==2.60.0" psutil==7.1.3

RAY_TMPDIR="$(mktemp -d -p /tmp)"
export RAY_TMPDIR RAY_USAGE_STATS_ENABLED=0
trap 'rm -rf "$RAY_TMPDIR" "$folder"' EXIT

python -W ignore - <<'PYTHON' 2>"$folder/log"
import importlib.metadata
import pathlib

import psutil
import ray

context = ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
logs = pathlib.Path(context.address_info["session_dir"]) / "logs"
print("ray", importlib.metadata.version("ray"), "with include_dashboard=False; its URL:", repr(context.dashboard_url))
children = {child: child.cmdline() for child in psutil.Process().children(recursive=True)}
(dashboard,) = [child for child, command in children.items() if any("dashboard.py" in word for word in command)]
(raylet,) = [child for child, command in children.items() if command[0].endswith("/raylet")]
(modules,) = [word for word in children[dashboard] if word.startswith("--modules-to-load")]
waited = raylet.create_time() - dashboard.create_time()
spent = sum(dashboard.cpu_times()[:2])
print(f"  a process of dashboard.py with {modules}: {spent:.1f} s of a core; the raylet started {waited:.1f} s after it")
told = (logs / "dashboard.log").read_text()
print("  it says of the telling:", next(line.split("-- ")[1] for line in told.splitlines() if "age report" in line))
ray.shutdown()
assert not context.dashboard_url
assert spent > 0.3
assert waited > 0.3
print("As described: a process that nobody asked for comes before all that was.")
PYTHON
