"""What hkrun prints where stdout and stderr are not UTF-8."""

import io
import json
import os
import subprocess
import sys

import pytest

from hkrun.cli.console import PlainConsole
from hkrun.cli.program import call as call_here
from hkrun.cli.streams import prepare_streams, printable

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
one_encoding = pytest.mark.parametrize("hkrun", ["C"], indirect=True)  # where the other adds only its letters


def call_in_locale(*arguments):
    """Calls hkrun in a process of the locale C, which opens files so too."""
    command = [sys.executable, "-m", "hkrun", *arguments]
    done = subprocess.run(command, env=os.environ | C_LOCALE, capture_output=True)
    return done.returncode, done.stdout, done.stderr


def call_on_streams(encoding, *arguments):
    """Calls hkrun in this process with stdout and stderr as PYTHONIOENCODING would make them."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        prepare_streams()
        code = call_here(arguments)
        for stream in streams:
            stream.flush()
    return code, *(stream.buffer.getvalue() for stream in streams)


@pytest.fixture(params=["C", "latin-1"])
def hkrun(request, folder):
    """Calls hkrun in that encoding: exit code, stdout and stderr, which are in it."""
    encoding = {"C": "ascii"}.get(request.param, request.param)

    def call(*arguments):
        in_locale = request.param == "C"
        code, *told = call_in_locale(*arguments) if in_locale else call_on_streams(encoding, *arguments)
        return code, *(text.decode(encoding) for text in told)

    call.encoding = encoding
    return call


def test_signs_are_written_plainly_and_letters_so_that_names_still_differ():
    shown = printable("2.1 ± 0.3 pp², \N{MINUS SIGN}1 \N{EN DASH} …", "ascii")
    assert shown == "2.1 +- 0.3 pp^2, -1 - ~"
    assert printable("é ê 学 \N{SNAKE}", "ascii") == r"\xe9 \xea \u5b66 \U0001f40d"
    assert printable("± é λ", "latin-1") == r"± é \u03bb"
    assert printable("caf\udce9 é", "utf-8") == r"caf\xe9 é"


def test_a_table_has_room_for_what_is_written():
    from rich.table import Table

    stream = io.TextIOWrapper(io.BytesIO(), "ascii", errors="hkrun.replace")
    table = Table()
    for row in (["é ± ²", "1"], ["a", "12"]):
        table.add_row(*row)
    PlainConsole(file=stream, width=80).print(table)
    stream.flush()
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert r"| \xe9 +- ^2 | 1  |" in lines
    assert len(set(map(len, lines))) == 1


def test_a_report_comes_out_and_its_files_are_as_ever(hkrun, store, folder, undrawn_figures):
    code, out, err = hkrun("report", "stability")
    assert (code, err) == (0, "")
    signs = {"ascii": ("pp^2", "+-"), "latin-1": ("pp²", "±")}[hkrun.encoding]
    assert all(sign in out for sign in signs)
    rows = [line for line in out.splitlines() if line.startswith(("|", "+"))]
    assert len(rows) > 4
    assert len(set(map(len, rows))) == 1
    (page,) = folder.glob("hkrun-store/sweeps/*/report.html")
    assert "±" in page.read_text(encoding="utf-8")


@one_encoding
@pytest.mark.parametrize("verb", ["status", "keys"])
def test_verbs_come_out(verb, hkrun, store):
    code, out, err = hkrun(verb)
    assert (code, err) == (0, "")
    assert out


def test_what_doctor_says_comes_out(folder):
    code, out, err = call_on_streams("ascii", "doctor")
    assert (code, err) == (0, b"")
    assert out.decode("ascii")


@one_encoding
def test_a_document_comes_out(hkrun, store):
    code, out, err = hkrun("status", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)


@pytest.fixture
def curves(folder):
    """A file of curves with two cells of other letters."""
    rows = [f"{cell},{seed},1,{seed}\n{cell},{seed},2,{2 * seed}" for cell in ("é", "λ") for seed in (1, 2)]
    (folder / "curves.csv").write_text("cell,seed,epoch,error_pct\n" + "\n".join(rows), encoding="utf-8")
    return "curves.csv"


@one_encoding
def test_names_in_a_document_are_whole(hkrun, curves):
    code, out, _ = hkrun("stability", curves, "--window", "2", "--json")
    assert code == 0
    assert [cell["cell"] for cell in json.loads(out)["cells"]] == ["é", "λ"]


def test_names_in_a_table_differ(hkrun, curves):
    code, out, _ = hkrun("stability", curves, "--window", "2")
    assert code == 0
    shown = {"ascii": r"\xe9", "latin-1": "é"}[hkrun.encoding]
    assert all(any(name in line for line in out.splitlines()) for name in (shown, r"\u03bb"))


def test_a_mistake_comes_out(hkrun, folder):
    (folder / "space.toml").write_text('dataset = "ziffern-é"', encoding="utf-8")
    code, out, err = hkrun("sweep", "space.toml")
    assert (code, out) == (2, "")
    assert {"ascii": r"ziffern-\xe9", "latin-1": "ziffern-é"}[hkrun.encoding] in err
    code, out, err = hkrun("sweep", "space.toml", "--json")
    assert code == 2
    assert any("ziffern-é" in problem for problem in json.loads(out)["error"]["problems"])


@one_encoding
def test_a_mistake_in_an_argument_comes_out(hkrun, folder):
    code, out, err = hkrun("keys", "stabilité")
    assert (code, out) == (2, "")
    assert err.startswith("hkrun: stabilit")


@pytest.mark.parametrize("arguments", [["status", "--store", "größe"], ["sweep", "größe.toml"]])
def test_a_name_whose_bytes_are_no_text_is_refused_with_what_helps(arguments, folder):
    command = [sys.executable, "-m", "hkrun", *arguments]
    done = subprocess.run(command, env=os.environ | C_LOCALE, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"hkrun: gr\\xc3\\xb6\\xc3\\x9fe" in done.stderr
    assert b"no text in ascii; run with PYTHONUTF8=1 or in a locale of UTF-8" in done.stderr
    assert list(folder.iterdir()) == []


def test_a_store_in_a_folder_whose_name_is_no_text_is_refused(folder):
    here = folder / "größe"
    here.mkdir()
    command = [sys.executable, "-m", "hkrun", "run", "--epochs", "1"]
    done = subprocess.run(command, env=os.environ | C_LOCALE, cwd=here, capture_output=True)
    assert done.returncode == 2
    assert b"gr\\xc3\\xb6\\xc3\\x9fe/hkrun-store: a name with bytes that are no text" in done.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_stream_is_no_error(stream, folder):
    command = f'exec "$0" -m hkrun keys loss.mu {stream}>&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
