"""TAB in real shells, and what hkrun answers them."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from shells import COMMANDS, Terminal
from sweep_example import fill_store, make_sweep

from hkrun.cli.completion import Typed, answer, read_line
from hkrun.cli.program import call, program
from hkrun.datasets import DATASETS
from hkrun.plans import save_plan
from hkrun.spaces import sweep_names
from hkrun.store import open_store

REPOSITORY = Path(__file__).parents[2]
REQUIRED = bool(os.environ.get("HKRUN_REQUIRE_SHELLS"))
AWKWARD = 'L_b + L_is [loss.lambda_3=1.0]: it\'s 100 % $new "one"'

# What is typed, and what is there after a TAB.
LINES = {
    "hkrun swe": "hkrun sweep ",
    "hkrun data ver": "hkrun data verify ",
    "hkrun data verify fol": "hkrun data verify folder ",
    "hkrun sweep stability --schedu": "hkrun sweep stability --scheduler ",
    "hkrun sweep stability --scheduler a": "hkrun sweep stability --scheduler asha ",
    "hkrun sweep sens": "hkrun sweep sensitivity ",
    "hkrun sweep own": "hkrun sweep own.toml ",
    "hkrun sweep stability student.learning_r": "hkrun sweep stability student.learning_rate=",
    "hkrun sweep stability method=hks": "hkrun sweep stability method=hksanc ",
    "hkrun sweep stability augment.flip=t": "hkrun sweep stability augment.flip=true ",
    "hkrun run --dataset=cifar100": "hkrun run --dataset=cifar100 ",
    "hkrun run --dataset mn": "hkrun run --dataset mnist5k ",
    "hkrun report tr": "hkrun report trial ",
    "hkrun --store ./hkrun-store rm tr": "hkrun --store ./hkrun-store rm trial ",
    "hkrun sweep stability --data my": "hkrun sweep stability --data my\\ data/",
    "hkrun sweep stability --data=my": "hkrun sweep stability --data=my\\ data/",
    "hkrun sweep stability --data ~/my": "hkrun sweep stability --data ~/my\\ data/",
    "hkrun submit -- sweep sens": "hkrun submit -- sweep sensitivity ",
    "hkrun export tri": "hkrun export trial:",
    "hkrun export trial:L": "hkrun export trial:L_b:",
    "hkrun nosuchverb ": "hkrun nosuchverb ",
    "hkrun export nosuchstudy": "hkrun export nosuchstudy",
}


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory):
    """A store of two studies; for copies of it."""
    place = tmp_path_factory.mktemp("two-studies") / "hkrun-store"
    store, sweep = open_store(place), make_sweep(num_cells=2)
    fill_store(store, sweep)
    cells = (sweep.cells[0], dataclasses.replace(sweep.cells[1], name=AWKWARD))
    for study in (dataclasses.replace(sweep, cells=cells), make_sweep(name="trial", num_cells=1)):
        save_plan(store, study)
    return place


@pytest.fixture
def place(folder, two_studies):
    """A working directory with a store of two studies, files, folders, and nothing of the user's."""
    shutil.copytree(two_studies, folder / "hkrun-store")
    for name in ("own.toml", "other.txt", "stab.toml"):
        (folder / name).touch()
    (folder / "my data").mkdir()
    return folder


@pytest.fixture
def environment(place):
    """What a process that asks hkrun for completions has."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "PYTHONPATH": str(REPOSITORY), "HOME": str(place)}


@pytest.fixture(params=sorted(COMMANDS))
def shell(request, place, environment):
    """An interactive shell in that directory."""
    if request.param != "bash" and not REQUIRED and shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with Terminal(request.param, folder=place, environment=environment) as terminal:
        terminal.name = request.param
        yield terminal


def values(capsys, shell, *arguments):
    """What hkrun answers a shell: kinds and values."""
    capsys.readouterr()
    answer(program, shell, arguments)
    told = capsys.readouterr()
    assert told.err == ""
    return [tuple(line.split("\t")[:2]) for line in told.out.splitlines()]


def words(capsys, *arguments):
    """The values alone, as zsh has them."""
    return [value for _, value in values(capsys, "zsh", *arguments)]


# --- real shells ----------------------------------------------------------------------------------------


def test_tab_completes(shell):
    assert {line: shell.complete(line)[0] for line in LINES} == LINES


def test_a_name_of_spaces_colons_equals_brackets_and_quotes_arrives_as_one_word(shell, place):
    (place / "show.py").write_text("import json, sys\nprint('((' + json.dumps(sys.argv[1:]) + '))')")
    for opened, space in (("", "\\ "), ("'", " "), ('"', " ")):
        line = shell.complete(f"hkrun export {opened}stability:L_b{space}")[0]  # another cell is L_b alone
        line = shell.complete(f"{line}1")[0].rstrip()
        if not line.endswith(opened):  # zsh matches no word with escapes in quotation marks: they stay open
            line += opened
        shown = shell.run(f"{sys.executable} show.py {line.removeprefix('hkrun export')}")
        assert json.loads(shown.partition("((")[2].partition("))")[0]) == [f"stability:{AWKWARD}:1"]


def test_two_tabs_list_what_there_is_and_what_it_means(shell):
    _, shown = shell.complete("hkrun sweep stab", tabs=2)
    assert "stability" in shown
    assert "stab.toml" in shown
    if shell.name != "bash":
        assert "Convergence stability" in shown


def test_nothing_of_a_failure_reaches_the_line(shell, place):
    shutil.rmtree(place / "hkrun-store")
    (place / "search_spaces").mkdir()
    (place / "search_spaces" / "broken.toml").write_text("title = [")
    completed, shown = shell.complete("hkrun report x", tabs=2)
    assert completed == "hkrun report x"
    assert "Error" not in shown
    assert shell.complete("hkrun sweep brok")[0] == "hkrun sweep broken "
    assert sorted(path.name for path in place.iterdir() if path.name.startswith("hkrun")) == []


@pytest.mark.parametrize(("shell", "file"), [("zsh", "_hkrun"), ("fish", "hkrun.fish")])
def test_the_script_works_from_the_folder_that_its_shell_loads_from(shell, file, place, environment):
    if not REQUIRED and shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    functions = place / ("functions" if shell == "zsh" else ".config/fish/completions")
    functions.mkdir(parents=True)
    (functions / file).write_text((REPOSITORY / f"hkrun/cli/shells/completion.{shell}").read_text())
    start = {
        "zsh": "fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D; whence -w _hkrun",
        "fish": 'complete -C "hkrun data v"',
    }[shell]
    done = subprocess.run(
        [shell, "-c", start], cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == {"zsh": "_hkrun:", "fish": "verify"}[shell]
    assert done.stderr == ""


def test_the_scripts_are_without_faults_for_their_shells(capsys):
    for shell in COMMANDS:
        if shutil.which(shell) is not None:
            path = REPOSITORY / f"hkrun/cli/shells/completion.{shell}"
            done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=True)
            assert done.stderr == ""
            assert call(["completion", shell]) == 0
            assert capsys.readouterr().out == path.read_text()


def test_an_unknown_shell_is_refused_with_those_there_are(capsys, document):
    assert call(["completion", "tcsh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err
    code, told = document("completion", "fish")
    assert (code, told["shell"]) == (0, "fish")
    assert "complete --command hkrun" in told["script"]


# --- what hkrun answers ---------------------------------------------------------------------------------


def test_verbs_are_offered_by_their_first_word(capsys):
    firsts = {name.partition(" ")[0] for name in program.commands}
    assert sorted(words(capsys, "")) == sorted(firsts)
    assert words(capsys, "data", "") == ["pack", "verify"]
    assert words(capsys, "--json", "data", "v") == ["verify"]


def test_search_spaces_come_with_their_titles_and_files(capsys):
    capsys.readouterr()
    answer(program, "zsh", ["sweep", ""])
    lines = capsys.readouterr().out.splitlines()
    assert "word\tstability\tConvergence stability" in lines
    assert [line.split("\t")[1] for line in lines[:-1]] == sweep_names()
    assert lines[-1] == "toml\t\t"
    assert ("word", "tables") in values(capsys, "zsh", "new", "mine.toml", "--from", "t")


def test_data_sets_are_offered_wherever_one_is_named(capsys):
    for line in (["run", "--dataset"], ["sweep", "x", "--dataset"], ["data", "verify"], ["ls", "--dataset"]):
        assert words(capsys, *line, "") == list(DATASETS), line


def test_values_are_offered_of_keys_with_a_closed_list(capsys):
    assert words(capsys, "run", "precision=") == [
        "precision=float32",
        "precision=bfloat16",
        "precision=float64",
    ]
    assert words(capsys, "run", "loss.category=") == ["loss.category=true", "loss.category=false"]
    assert "student.network=resnet8x4" in words(capsys, "run", "student.network=resnet8")
    assert words(capsys, "run", "student.learning_rate=") == []
    assert words(capsys, "run", "no.key=") == []


def test_keys_go_on_and_other_words_do_not(capsys):
    assert values(capsys, "zsh", "run", "attention.w") == [("part", "attention.width=")]
    assert values(capsys, "zsh", "keys", "attention.w") == [("word", "attention.width")]


def test_studies_are_those_of_the_store_that_the_line_names(place, capsys):
    (place / "hkrun-store").rename(place / "other store")
    for verb in ("report", "status", "resume", "sync", "rm", "logs", "cancel", "compare"):
        assert "trial" not in words(capsys, verb, "")
        assert words(capsys, verb, "--store", "other store", "tri")[0] == "trial", verb
        assert words(capsys, f"--store={place}/other store", verb, "tri")[0] == "trial", verb


def test_the_store_of_the_variable_is_looked_at(place, capsys, monkeypatch):
    (place / "hkrun-store").rename(place / "elsewhere")
    monkeypatch.setenv("HKRUN_STORE", str(place / "elsewhere"))
    assert words(capsys, "rm", "") == ["stability", "trial"]


def test_runs_are_completed_part_by_part(place, capsys):
    assert values(capsys, "zsh", "export", "") == [("part", "stability:"), ("part", "trial:")]
    assert words(capsys, "export", "stability:") == ["stability:L_b:", f"stability:{AWKWARD}:"]
    assert words(capsys, "export", "stability:L_b:") == [f"stability:L_b:{seed}" for seed in range(3)]


def test_what_is_damaged_is_not_offered_and_the_rest_is(place, capsys):
    (place / "hkrun-store/sweeps/trial-digits/plan.json").write_text('{"sweep": {"name": "trial"')
    assert words(capsys, "rm", "") == ["stability"]
    (place / "hkrun-store/sweeps/stability-digits/plan.json").write_text('{"sweep": 3}')
    assert words(capsys, "rm", "") == []


def test_names_that_would_break_the_line_are_left_out(place, capsys):
    file = place / "hkrun-store/sweeps/trial-digits/plan.json"
    plan = json.loads(file.read_text())
    plan["sweep"]["name"] = "two\nlines"
    file.write_text(json.dumps(plan))
    assert words(capsys, "rm", "") == ["stability"]


def test_a_store_elsewhere_is_not_asked(capsys, monkeypatch):
    monkeypatch.setenv("HKRUN_STORE", "s3://lab/study?endpoint_override=localhost:1")
    assert words(capsys, "rm", "") == []


def test_a_job_is_completed_as_its_verb(capsys):
    assert words(capsys, "submit", "--address", "http://head:8265", "--", "") == [
        *("sweep", "run", "teacher", "resume")
    ]
    assert words(capsys, "submit", "--", "run", "--dataset=cifar100") == ["--dataset=cifar100"]
    assert words(capsys, "submit", "--", "sweep", "stability", "method=hks") == ["method=hksanc"]


def test_every_argument_and_every_option_of_a_path_or_data_set_offers_something():
    silent = []
    for verb in program.commands.values():
        for parameter in verb.params:
            metavar = parameter.metavar or ""
            names_place = any(word in metavar for word in ("DIR", "FILE", "PATH", "KEY=VALUE"))
            asked = isinstance(parameter, click.Argument) or names_place or parameter.name == "dataset"
            own = parameter._custom_shell_complete is not None
            if asked and not own and not isinstance(parameter.type, click.Path | click.Choice):
                silent.append((verb.name, parameter.name))
    assert silent == []


# --- bash's line ----------------------------------------------------------------------------------------

BREAKS = "\"'@><=;|&(:"


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("hkrun ", Typed(words=(), current="")),
        ("hkrun sweep sta", Typed(words=("sweep",), current="sta", replaced="sta")),
        ("hkrun run a.b=c", Typed(words=("run",), current="a.b=c", replaced="c")),
        (r"hkrun export s:L_b\ +", Typed(words=("export",), current="s:L_b +", replaced="L_b +")),
        ("hkrun export 's:L_b +", Typed(words=("export",), current="s:L_b +", replaced="s:L_b +", quote="'")),
        (
            r'hkrun export "s:\"a\" \b',
            Typed(words=("export",), current='s:"a" \\b', replaced='s:"a" \\b', quote='"'),
        ),
        ("hkrun export s:'L_b", Typed(words=("export",), current="s:L_b", replaced="L_b", quote="'")),
        ("hkrun report 'a b' --", Typed(words=("report", "a b"), current="--", replaced="--")),
        ("hkrun report '' x", Typed(words=("report", ""), current="x", replaced="x")),
    ],
)
def test_a_line_of_bash_is_read_as_bash_splits_it(line, typed):
    assert read_line(line, breaks=BREAKS) == typed


def test_a_backslash_in_single_quotes_means_something_in_fish_alone():
    assert read_line("hkrun 'it\\'s \\n", shell="fish").current == "it's \\n"
    assert read_line("hkrun 'a\\b", shell="zsh").current == "a\\b"


def test_text_for_bash_begins_where_bash_replaces(place, capsys, monkeypatch):
    monkeypatch.setenv("COMP_WORDBREAKS", BREAKS)
    assert values(capsys, "bash", "hkrun run method=hk") == [("word", "hksanc")]
    assert values(capsys, "bash", "hkrun export trial:L") == [("part", "L_b:")]
    monkeypatch.setenv("COMP_WORDBREAKS", " \t\n")  # as those have it who took = and : out
    assert values(capsys, "bash", "hkrun run method=hk") == [("word", "method=hksanc")]
    assert values(capsys, "bash", "hkrun export trial:L") == [("part", "trial:L_b:")]


# --- how fast, and what is left behind ------------------------------------------------------------------


@pytest.mark.parametrize("line", [["sweep", ""], ["run", "student."], ["export", "stability:"], ["rm", ""]])
def test_an_answer_takes_less_than_half_a_second_of_a_core_and_loads_nothing_heavy(line, place, environment):
    code = """
        import sys
        from hkrun.cli.completion import answer
        from hkrun.cli.program import program
        answer(program, "zsh", sys.argv[1:])
        heavy = {"torch", "ray", "mlflow", "pyarrow", "numpy", "scipy", "rich", "matplotlib"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *line]
    took = []
    while len(took) < 3 and min(took, default=1.0) >= 0.5:  # another process may have had its core
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert told.stdout.count("\n") >= 2
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.5


def test_asking_creates_nothing_and_changes_nothing(place, environment):
    def state():
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in place.rglob("*")
        }

    before = state()
    for line in ("hkrun sweep ", "hkrun export s", "hkrun --store new report ", "hkrun new ", "hkrun ui --"):
        asked = {**environment, "_HKRUN_COMPLETE": "bash"}
        done = subprocess.run(["hkrun", line], env=asked, cwd=place, capture_output=True, check=True)
        assert done.stderr == b""
    assert state() == before
