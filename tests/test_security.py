"""What docs/security.md promises of the code: what is loaded, where it listens, what names may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hkrun
from hkrun.cli.program import call
from hkrun.errors import StoreError
from hkrun.store import open_store

PACKAGE = Path(hkrun.__file__).parent
# What reads a file that may hold code, and the arguments without which it would run it.
GUARDED = {
    "torch.load": {"weights_only": True},
    "torch.hub.load_state_dict_from_url": {"weights_only": True, "check_hash": True},
    "torch.distributed.broadcast_object_list": {"weights_only": True},
    "torch.distributed.all_gather_object": {"weights_only": True},
    "dist.broadcast_object_list": {"weights_only": True},
    "dist.all_gather_object": {"weights_only": True},
    "np.load": {"allow_pickle": False},
    "numpy.load": {"allow_pickle": False},
}
FORBIDDEN = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "cloudpickle.load",
    "cloudpickle.loads",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "yaml.load",
    "yaml.unsafe_load",
    "joblib.load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "torch.jit.load",
    "torch.hub.load",
    "eval",
    "exec",
    "os.system",
    "os.popen",
}


def dotted(node: ast.expr) -> str:
    """A call's name as it is written, such as `torch.load`; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def find_unsafe(source: str) -> Iterator[str]:
    """Every call that would run what a file holds, and names that hide such a call."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if f"{node.module}.{alias.name}" in {*GUARDED, *FORBIDDEN}:
                    yield f"{node.lineno}: from {node.module} import {alias.name}"
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if name in FORBIDDEN:
            yield f"{node.lineno}: {name}"
        if name in GUARDED and not GUARDED[name].items() <= given.items():
            yield f"{node.lineno}: {name} without {GUARDED[name]}"
        if given.get("shell") is True:
            yield f"{node.lineno}: {name} with a shell"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.load(f, weights_only=True)", 0),
        ("import torch\ntorch.load(f)", 1),
        ("import torch\ntorch.load(f, weights_only=False)", 1),
        ("torch.distributed.broadcast_object_list(told)", 1),
        ("import torch.distributed as dist\ndist.all_gather_object(told, own)", 1),
        ("from torch.distributed import all_gather_object", 1),
        ("torch.distributed.broadcast_object_list(told, weights_only=True)", 0),
        ("np.load(f, allow_pickle=True)", 1),
        ("np.load(f, allow_pickle=False)", 0),
        ("import pickle\npickle.loads(b'')", 1),
        ("from pickle import loads", 1),
        ("from torch import load", 1),
        ("subprocess.run(x, shell=True)", 1),
        ("eval('1')", 1),
        ("model.eval()", 0),
    ],
)
def test_the_search_for_unsafe_loads_finds_them(source, found):
    assert len(list(find_unsafe(source))) == found


# What comes from nobody else: from the command that has started the driver, by a pipe; an empty text.
TRUSTED = ["cli/program.py: exec", "cluster/driver/process.py: pickle.loads"]


def test_nothing_that_is_loaded_can_run_code():
    unsafe = [
        f"{path.relative_to(PACKAGE)}: {found.partition(': ')[2]}"
        for path in PACKAGE.rglob("*.py")
        for found in find_unsafe(path.read_text(encoding="utf-8"))
    ]
    assert sorted(unsafe) == TRUSTED
    assert 'exec("")' in (PACKAGE / "cli" / "program.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["../outside", "..", "a/../../b", "/etc/passwd", "a\\b", "a\nb", ".hidden"])
def test_names_on_the_command_line_cannot_leave_the_store(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = open_store(tmp_path / "study" / "store")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for arguments in (
        ("report", name),
        ("status", name),
        ("resume", name),
        ("sync", name),
        ("report", "stability", "--dataset", name),
    ):
        code = call([*arguments, "--store", str(tmp_path / "study" / "store")])
        assert code in (2, 6), arguments
    with pytest.raises(StoreError):
        store.sweep_folder(name, "digits")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".x", "a b", "x?y=1", "x#y", "%2e%2e", "", "a" * 200, "a\n"]
)
def test_a_jobs_name_stands_for_a_job_alone(name):
    from hkrun.cluster.jobs import check_id
    from hkrun.errors import InputError

    with pytest.raises(InputError, match="is no job"):
        check_id(name)


def test_a_search_space_cannot_be_named_out_of_the_store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a study.toml").write_text('dataset = "digits"\n[[cells]]\nname = "x"\n')
    assert call(["sweep", "a study.toml", "--dry-run"]) == 2
    assert "the name must be of letters, digits, '.', '_' and '-'" in capsys.readouterr().err
