import importlib.metadata
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hkrun.cli.version
import hkrun.sweep
from hkrun.cli.program import call, program
from hkrun.code_identity import Code
from hkrun.errors import (
    ClusterLostError,
    DataError,
    HkrunError,
    InputError,
    ResourceError,
    StoreError,
    TrainingError,
)
from hkrun.git_state import GitState
from hkrun.store import open_store

COMMIT = "31034ee" + "0" * 33
VERBS = [
    *("sweep", "run", "teacher", "resume", "report", "stability", "status", "export", "sync", "ui"),
    *("doctor", "keys", "completion", "spaces", "new", "ls", "compare", "rm", "gc"),
    *("submit", "logs", "cancel"),
    *("data pack", "data verify"),
]


def test_the_verbs_are_those_that_the_first_screen_shows(capsys):
    assert sorted(program.commands) == sorted(VERBS)
    assert call([]) == 0
    bare = capsys.readouterr().out
    assert call(["--help"]) == 0
    assert capsys.readouterr().out == bare
    for verb in VERBS:
        assert f"\n  {verb} " in bare
    assert max(map(len, bare.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples_that_begin_with_it(verb, capsys):
    assert call([verb, "--help"]) == 0
    text = capsys.readouterr().out
    examples = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()[::2]
    assert examples
    assert all(f"hkrun {verb}" in line for line in examples)
    for option in ("--store", "--data", "--json", "--yes", "--verbose"):
        assert option in text
    assert call([verb, "-h"]) == 0


def test_the_first_word_of_several_verbs_explains_them_all(capsys):
    assert call(["data", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: hkrun data pack " in text
    assert "Usage: hkrun data verify " in text
    assert call(["data"]) == 2


def test_resume_promises_no_other_data_set(capsys):
    assert call(["resume", "--help"]) == 0
    assert "--dataset NAME  Only sweeps on this data set." in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_terminal_of_eighty_columns(verb, capsys):
    assert call([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (GitState(commit=COMMIT, changed=()), COMMIT),
        (GitState(commit=COMMIT, changed=("hkrun/x.py",)), f"{COMMIT}, changed since"),
        (None, "none: not run from a repository"),
    ],
)
@pytest.mark.parametrize("epoch", ["epoch 1", "of no epoch"])
def test_version_tells_the_build_in_lines_and_as_a_document(
    state, told, epoch, capsys, document, monkeypatch
):
    genuine = importlib.metadata.version
    versions = {"torch": "2.15.0+cpu", "ray": genuine("ray")}

    def find(package):
        if package in versions:
            return versions[package]
        raise importlib.metadata.PackageNotFoundError(package)

    numbers = "epoch 1" if epoch == "epoch 1" else "source 0123456789ab"
    code = Code(numbers=numbers, source="0123456789ab")
    monkeypatch.setattr(importlib.metadata, "version", find)
    monkeypatch.setattr(hkrun.cli.version, "read_state", lambda folder: state)
    monkeypatch.setattr(hkrun.cli.version, "find_code", lambda: code)
    assert call(["--version"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"hkrun {hkrun.__version__}",
        f"commit   {told}",
        f"numbers  {epoch}, source 0123456789ab",
        f"Python   {platform.python_version()}",
        "torch    2.15.0+cpu",
        f"ray      {versions['ray']}",
        "mlflow   not installed",
    ]
    assert document("--version") == (
        0,
        {
            "hkrun": hkrun.__version__,
            "commit": None if state is None else COMMIT,
            "changed": None if state is None else bool(state.changed),
            "numbers": numbers,
            "source": "0123456789ab",
            "python": platform.python_version(),
            "torch": "2.15.0+cpu",
            "ray": versions["ray"],
            "mlflow": None,
        },
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["swep"], "no verb 'swep'; the verbs are cancel, compare, completion, data pack, data verify, "),
        (["swep"], "did you mean 'sweep'?"),
        (["compare-curves", "x.csv"], "; `hkrun stability` compares curves (see: hkrun --help)"),
        (["sweep"], "Missing argument 'NAME|FILE'"),
        (["sweep", "stability", "--sed", "3"], "--seeds"),
        (["sweep", "stability", "--workers", "0"], "'--workers'"),
        (["stability", "x.csv", "--ddof", "2"], "'--ddof'"),
        (["sweep", "stabilty"], "did you mean 'stability'?"),
        (["sweep", "stability", "los.mu=1"], "did you mean 'loss.mu'?"),
        (["run", "--epochs", "x"], "--epochs: student.epochs: 'x' is not of type integer"),
        (["keys", "lrate"], "lrate: no key matches"),
        (["stability", "missing.csv"], "missing.csv"),
        (["stability", "stability"], "hkrun report stability"),
        (["sweep", "stability", "--sed", "3"], "(see: hkrun sweep --help)"),
    ],
)
def test_a_wrong_word_exits_with_2_and_says_what_is_allowed(folder, arguments, problem, capsys, document):
    assert call(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert problem in output.err
    code, told = document(*arguments)
    assert (code, told["error"]["code"]) == (2, 2)
    assert any(problem in line for line in told["error"]["problems"])
    assert told["error"]["message"]


def test_an_option_without_its_value_leads_to_the_help_of_its_verb(folder, capsys):
    assert call(["status", "--store"]) == 2
    assert "'--store' requires an argument. (see: hkrun status --help)" in capsys.readouterr().err


def test_all_mistakes_are_in_the_document_one_by_one(folder, document):
    code, told = document("sweep", "stability", "--seeds", "x", "los.mu=1", "student.epochs=0")
    assert code == 2
    assert told["error"]["message"] == "3 problems"
    assert len(told["error"]["problems"]) == 3


def test_a_missing_store_is_named_and_none_is_made(folder, capsys):
    for verb in ("status", "resume", "sync"):
        assert call([verb]) == 2
        assert "there is no store" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError, 2), (DataError, 3), (ResourceError, 4), (TrainingError, 5), (StoreError, 6)],
)
def test_every_kind_of_failure_has_its_exit_code(folder, started, monkeypatch, capsys, document, error, code):
    def fail(*_, **__):
        raise error("first line\nsecond line")

    monkeypatch.setattr(hkrun.sweep, "run_study", fail)
    assert call(["sweep", "stability"]) == code
    assert "hkrun: first line\nhkrun: second line\n" in capsys.readouterr().err
    told = {"code": code, "message": "2 problems", "problems": ["first line", "second line"]}
    assert document("sweep", "stability") == (code, {"error": told})


@pytest.mark.parametrize("error", [ZeroDivisionError("boom"), HkrunError("boom"), SystemExit("boom")])
def test_a_bug_leaves_its_traceback_in_the_stores_logs(folder, started, monkeypatch, document, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(hkrun.sweep, "run_study", fail)
    code, told = document("sweep", "stability", "--seeds", "3")
    assert (code, told["error"]["code"]) == (1, 1)
    (log,) = (folder / "hkrun-store" / "logs").iterdir()
    assert told["error"]["message"].endswith(str(log))
    content = log.read_text()
    assert "$ hkrun sweep stability --seeds 3 --json\n" in content
    assert content.rstrip().endswith("boom")
    assert "Traceback" in content


def test_a_bug_leaves_no_password_in_its_log(folder, started, monkeypatch, capsys):
    def fail(study, *_):
        raise RuntimeError(f"cannot read {study.options.data_dir}/imagenet")

    monkeypatch.setattr(hkrun.sweep, "run_study", fail)
    assert call(["sweep", "stability", "--data", "s3://key:se/cret pass@bucket/data"]) == 1
    assert "cannot read s3://bucket/data/imagenet" in capsys.readouterr().err
    (log,) = (folder / "hkrun-store" / "logs").iterdir()
    content = log.read_text()
    assert "--data s3://bucket/data\n" in content
    assert content.rstrip().endswith("cannot read s3://bucket/data/imagenet")
    assert "cret" not in content


def test_a_mistake_is_refused_without_the_password_in_it(folder, capsys):
    assert call(["status", "a", "s3://key:se/cret@bucket/data"]) == 2
    assert "s3://bucket/data" in capsys.readouterr().err


def test_what_is_logged_shows_no_password(folder, started, monkeypatch, capsys):
    def fail(study, *_):
        logging.getLogger("hkrun").warning("cannot reach %s", study.options.data_dir)
        raise DataError("no data")

    monkeypatch.setattr(hkrun.sweep, "run_study", fail)
    assert call(["sweep", "stability", "--data", "s3://key:se/cret pass@bucket/data"]) == 3
    assert capsys.readouterr().err == "hkrun: warning: cannot reach s3://bucket/data\nhkrun: no data\n"


def test_a_bug_without_a_store_leaves_its_traceback_in_a_temporary_file(folder, monkeypatch, document):
    def fail(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("hkrun.cli.keys.describe_type", fail)
    code, told = document("keys")
    assert code == 1
    (log,) = folder.iterdir()
    assert told["error"]["message"].endswith(str(log))
    assert "RuntimeError: boom" in log.read_text()


def test_ctrl_c_exits_with_75_and_says_how_to_go_on(folder, started, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hkrun.sweep, "run_study", interrupt)
    assert call(["sweep", "stability", "--store", "a store"]) == 75
    again = "go on with: hkrun resume stability --dataset digits"
    assert f"{again} --store 'a store'" in capsys.readouterr().err
    assert call(["sweep", "stability"]) == 75
    assert capsys.readouterr().err.endswith(f"{again}\n")
    assert call(["sweep", "stability", "--dataset", "imagenet", "--data", "my data"]) == 75
    again = "go on with: hkrun resume stability --dataset imagenet --data 'my data'"
    assert capsys.readouterr().err.endswith(f"{again}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["sensitivity", "--scheduler", "asha"],
        ["stability", "--dataset", "imagenet", "--data", "s3://key:secret@bucket/shards"],
    ],
    ids=["shortcut", "secret"],
)
def test_after_ctrl_c_the_same_command_goes_on_where_resume_would_do_something_else(
    folder, started, monkeypatch, capsys, arguments
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hkrun.sweep, "run_study", interrupt)
    open_store(folder / "hkrun-store")
    assert call(["sweep", *arguments, "--yes"]) == 75
    assert capsys.readouterr().err.endswith("go on with: the same command\n")


def test_a_lost_cluster_exits_with_75_and_says_why_and_how_to_go_on(folder, started, monkeypatch, document):
    def lose(*_, **__):
        raise ClusterLostError("Ray's raylet on this machine has ended (killed by SIGKILL)")

    monkeypatch.setattr(hkrun.sweep, "run_study", lose)
    code, told = document("sweep", "stability")
    message = (
        "Ray's raylet on this machine has ended (killed by SIGKILL); what is finished is kept: 0 of 80 runs; "
        "no checkpoint yet; go on with: hkrun resume stability --dataset digits"
    )
    assert (code, told) == (75, {"error": {"code": 75, "message": message, "problems": [message]}})


def hkrun_process(statements, *arguments, **options):
    """A fresh process that runs statements, then hkrun."""
    # A shell that runs the tests in the background has them, and so this process, ignore SIGINT.
    code = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"{textwrap.dedent(statements)}\nfrom hkrun.cli.program import call\n"
    code += f"sys.exit(call({list(arguments)!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_interrupt(folder, number):
    statements = """
        import time
        import hkrun.cli.keys
        def wait(*_):
            print("waiting", flush=True)
            time.sleep(60)
        hkrun.cli.keys._document = wait
    """
    with hkrun_process(statements, "keys", "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 75
    assert json.loads(out)["error"]["code"] == 75
    assert "Traceback" not in err


INTERRUPTED = """
from hkrun.cli import program

def interrupt(*_):
    exec("raise KeyboardInterrupt")

program._invoke = interrupt
program.main()
"""


def test_python_m_exits_with_75_too_where_ctrl_c_comes_as_a_class_is_made(tmp_path):
    (tmp_path / "interrupted.py").write_text(INTERRUPTED, encoding="utf-8")
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 75
    assert done.stderr == "hkrun: interrupted; what is finished is kept\n"


def test_a_reader_that_goes_away_is_no_error(folder):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with hkrun_process("", "keys", stdout=write_end) as process:
        os.close(write_end)
        assert process.communicate()[1] == ""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("arguments", [("keys",), ("--help",), ("keys", "--json")])
def test_an_output_that_has_no_room_is_one_line_and_no_bug(folder, arguments):
    with Path("/dev/full").open("w") as full, hkrun_process("", *arguments, stdout=full) as process:
        told = process.communicate()[1]
    assert told == "hkrun: the output cannot be written: No space left on device\n"
    assert process.returncode == 6


def test_verbose_shows_where_a_refusal_comes_from(folder):
    with hkrun_process("", "stability", "-v", "no-such.csv") as process:
        told = process.communicate()[1]
    assert process.returncode == 2
    assert "in read_rows" in told
    assert told.endswith("hkrun: no-such.csv: No such file or directory\n")
    with hkrun_process("", "stability", "no-such.csv") as process:
        assert process.communicate()[1] == "hkrun: no-such.csv: No such file or directory\n"
