"""Real runs from Python: in a thread, beside a Ray of the user's, and interrupted."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import in_process
import pytest

import hkrun
import hkrun.cluster

pytestmark = pytest.mark.cluster

SPACE = {
    "title": "trial",
    "dataset": "digits",
    "seeds": 2,
    "base": {"student.epochs": 2, "method": "supervised"},
    "analysis": {"window": 2},
    "reference": "one",
    "cells": [{"name": "one"}, {"name": "two", "student.momentum": 0.5}],
}


def run_script(text: str, **options) -> subprocess.Popen[str]:
    """A process of its own that executes a script, which finds the search space as SPACE."""
    code = f"import hkrun\nSPACE = {SPACE!r}\n{textwrap.dedent(text)}"
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, **options
    )


def find_processes_of_ray() -> set[int]:
    """The ids of the processes of Ray that this test has started, by way of others."""
    mark = f"FOLDER_OF_TEST={os.environ['FOLDER_OF_TEST']}".encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        is_rays = b"gcs_server" in words or b"raylet" in words or words.startswith(b"ray::")
        if is_rays and mark in variables.split(b"\0"):
            found.add(int(process.name))
    return found


@pytest.fixture(autouse=True)
def store(quick_mirror, undrawn_figures):
    """A store in which MLflow finds its tables, and whose reports draw nothing: neither is looked at."""
    quick_mirror("s")


def test_a_study_is_stopped_in_a_thread_goes_on_grows_and_is_read_again(folder, monkeypatch):
    at_work, kinds = set(), []

    def stop_after_the_first_run(event):
        at_work.update(find_processes_of_ray() if event.kind == "progress" else ())
        if event.kind == "end":
            raise KeyboardInterrupt

    def in_thread():
        hkrun.run(SPACE, store="s", seeds=6, pack=1, progress=stop_after_the_first_run)

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.submit(in_thread).result()
    assert at_work, "they can be found while they are there"
    assert find_processes_of_ray() == set()

    # What is left to do is done in this process.
    monkeypatch.setattr(hkrun.cluster, "run_tasks", in_process.run_tasks)
    stopped = hkrun.open_store("s").study("trial").runs().to_pandas()
    study = hkrun.run(SPACE, store="s", seeds=6, progress=lambda event: kinds.append(event.kind))
    assert (study.name, study.progress) == ("trial", "12/12")
    assert kinds[0] == "phase"
    assert kinds.count("plan") == 1
    assert kinds.count("start") == kinds.count("end") > 0
    assert Path(study.report()).is_file()
    grown = hkrun.run(SPACE, store="s", seeds=7, progress=False)
    assert grown.progress == "14/14"
    first, whole, more = (
        runs.dropna(subset="started_at")
        for runs in (stopped, study.runs().to_pandas(), grown.runs().to_pandas())
    )
    assert len(first) >= 1
    assert set(first.started_at) < set(whole.started_at) < set(more.started_at), "no run was repeated"
    assert hkrun.plan(SPACE, store="s", seeds=7).to_run == 0
    assert hkrun.run(SPACE, store=hkrun.open_store("s"), seeds=7, progress=False).progress == "14/14"


def test_a_process_that_is_in_ray_stays_there_and_the_tasks_go_to_its_cluster(folder):
    script = """
        import os, ray
        os.environ["RAY_worker_niceness"] = "0"  # else its tasks starve beside the other tests
        quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        ray.init(address="local", num_cpus=1, **quiet)
        address = ray.get_runtime_context().gcs_address

        @ray.remote(num_cpus=0)
        class Mine:
            def answer(self):
                return 42

        mine = Mine.remote()
        phases = []
        study = hkrun.run(SPACE, store="s", progress=lambda event: phases.append(event.phase))
        assert "starting Ray" in phases
        assert study.progress == "4/4", study
        assert ray.is_initialized() and ray.get_runtime_context().gcs_address == address
        assert ray.get(mine.answer.remote()) == 42
        print(ray.available_resources()["CPU"], len(ray.nodes()))
    """
    process = run_script(script)
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    assert told.split()[-2:] == ["1.0", "1"], "its CPU is free again, and no other node is there"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_leaves_a_store_that_the_same_call_goes_on_with(folder, number):
    script = """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def tell(event):
            if event.kind == "progress":
                print("training", flush=True)
        try:
            hkrun.run(SPACE, store="s", epochs=400, progress=tell)
        except KeyboardInterrupt as interrupt:
            print(interrupt)
            print(hkrun.open_store("s").study("trial-epochs-400").progress)
    """
    process = run_script(script)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    lines = [line for line in told.splitlines() if line != "training"]
    assert lines[0].startswith(f"stopped by {number.name}; what is finished is kept")
    assert lines[1] == "0/4"
    assert find_processes_of_ray() == set()
    assert hkrun.plan(SPACE, store="s", epochs=400).to_run == 4


def test_a_function_that_stops_a_study_before_its_first_epoch_leaves_all_of_it_to_the_next_call(
    folder, monkeypatch
):
    monkeypatch.setattr(hkrun.cluster, "run_tasks", in_process.run_tasks)

    def stop_at_the_first_start(event):
        if event.kind == "start":
            raise KeyboardInterrupt

    def in_thread():
        hkrun.run(SPACE, store="s", progress=stop_at_the_first_start)

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.submit(in_thread).result()
    assert hkrun.open_store("s").study("trial").progress == "0/4"
    assert hkrun.plan(SPACE, store="s").to_run == 4
    assert hkrun.run(SPACE, store="s", progress=False).progress == "4/4"
