"""`submit` and the verbs about jobs, against a server that says what a test wants."""

import dataclasses
import http.server
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from sweep_example import make_sweep

from hkrun.cli.program import call, program
from hkrun.cli.submitting import read_work
from hkrun.cluster.jobs import JobServer, access, check_id, shipping, submitting
from hkrun.cluster.jobs.access import is_private_way, open_access, read_address
from hkrun.cluster.jobs.server import find_exit_code
from hkrun.cluster.jobs.shipping import read_versions, reduce_lock
from hkrun.cluster.jobs.submitting import Work, find_variables, name_job, read_answer
from hkrun.cluster.token import ensure_token, find_token
from hkrun.errors import InputError, ResourceError
from hkrun.git_state import read_state
from hkrun.plans import save_plan
from hkrun.spaces import load_sweep
from hkrun.store import open_store

SMALL_NETS = """
from torch import nn
from hkrun.models import BatchNorm2d, Features

class SmallNet(nn.Module):
    widths = (8,)
    stem_width = 4

    def __init__(self, *, num_classes, in_channels):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 3, padding=1, bias=False)
        self.stage = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.norm = BatchNorm2d(8)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images):
        stem = self.stem(images)
        stage = self.stage(stem.relu())
        descriptor = self.norm(stage).relu().mean(dim=(2, 3))
        return Features(logits=self.classifier(descriptor), stages=(stage,), descriptor=descriptor, stem=stem)
"""


class FakeCluster:
    """A server that takes one token, or everybody where there is none, and remembers what it was shown."""

    def __init__(self, token: str | None, *, status: int = 200, body: bytes = b'{"ray_version": "2.60.0"}'):
        self.shown: list[str | None] = []
        shown = self.shown

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                given = self.headers.get("Authorization")
                shown.append(given)
                code = status
                if token is not None and given != f"Bearer {token}":
                    code = 401 if given is None else 403
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                if code == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def cluster(folder) -> Iterator[object]:
    """Makes fake clusters."""
    made = []

    def make(token: str | None, **options) -> FakeCluster:
        made.append(FakeCluster(token, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


# --- the way in ---------------------------------------------------------------------------------------------


def test_a_cluster_that_answers_without_a_token_is_refused_and_never_shown_ours(cluster, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    server = cluster(None)
    with pytest.raises(ResourceError, match=r"this cluster answers without a token.*--insecure"):
        open_access(server.url, insecure=False)
    found = open_access(server.url, insecure=True)
    assert (found.headers, found.ray_version) == ({}, "2.60.0")
    assert server.shown == [None, None]


def test_the_token_opens_and_is_in_no_representation(cluster, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    found = open_access(cluster("mine").url, insecure=False)
    assert found.headers == {"Authorization": "Bearer mine"}
    assert "mine" not in repr(found)


@pytest.fixture
def listeners(monkeypatch, tmp_path_factory):
    """Replaces the tables of who listens: addresses as Linux writes them, ports, states and accounts."""

    def use(*rows):
        table = tmp_path_factory.mktemp("net") / "tcp"
        lines = [
            f"   {number}: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 "
            f"{uid}        0 1234 1 0000000000000000 100 0 0 10 0"
            for number, (address, port, state, uid) in enumerate(rows)
        ]
        table.write_text("\n".join(["  sl  local_address rem_address st ...", *lines]) + "\n")
        monkeypatch.setattr(access, "TABLES", (table, table.parent / "none"))

    return use


@pytest.mark.parametrize(
    "address", ["0100007F", "00000000", "0" * 32, "0000000000000000FFFF00000100007F"]
)  # 127.0.0.1, all of IPv4, all of IPv6, 127.0.0.1 in IPv6
def test_another_account_that_listens_where_the_tunnel_was_is_not_shown_the_token(
    cluster, monkeypatch, listeners, address
):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    server = cluster("mine")
    listeners((address, server.server.server_address[1], "0A", os.getuid() + 1))
    with pytest.raises(ResourceError, match=rf"user id {os.getuid() + 1}\), and would be shown the token"):
        open_access(server.url, insecure=False)
    assert server.shown == [None]
    assert open_access(server.url, insecure=True).headers


def test_who_listens_elsewhere_or_is_the_user_or_root_does_not_matter(cluster, monkeypatch, listeners):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    server = cluster("mine")
    port, stranger = server.server.server_address[1], os.getuid() + 1
    listeners(
        ("0100007F", port, "0A", os.getuid()),
        ("0100007F", port, "0A", 0),
        ("0200007F", port, "0A", stranger),
        ("0100007F", port + 1, "0A", stranger),
        ("0100007F", port, "01", stranger),
    )
    assert open_access(server.url, insecure=False).headers


def test_linux_tells_who_listens(monkeypatch):
    uid, nobody = os.getuid(), 65534
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert access.find_strangers("127.0.0.1", ours.getsockname()[1]) == set()
    if uid == 0:
        os.seteuid(nobody)
    try:
        other = socket.create_server(("127.0.0.1", 0))
    finally:
        os.seteuid(uid)
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with other:
        found = access.find_strangers("localhost", other.getsockname()[1])
    assert found == {uid or nobody}


def test_no_proxy_sees_what_goes_to_this_machine(cluster, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    proxy, server = cluster("mine"), cluster("mine")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = open_access(server.url, insecure=False)
    JobServer(found)  # Ray's client asks for the version
    assert server.shown[:2] == [None, "Bearer mine"]
    assert len(server.shown) > 2
    assert proxy.shown == []
    assert "no_proxy" not in os.environ


@pytest.mark.parametrize(
    ("ours", "problem"),
    [(None, "wants a token, and there is none in"), ("another", "does not take the token")],
)
def test_a_missing_or_wrong_token_is_one_clear_line(cluster, monkeypatch, capsys, ours, problem):
    if ours:
        monkeypatch.setenv("RAY_AUTH_TOKEN", ours)
    code = call(["status", "--address", cluster("mine").url])
    (line,) = capsys.readouterr().err.splitlines()
    assert (code, problem in line) == (4, True)
    assert "another's" in line or ours is None
    assert "mine" not in line


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"status": 302}, "answers with HTTP 302"),
        ({"status": 500}, "answers with HTTP 500"),
        ({"body": b"<html>"}, "does not answer as Ray's dashboard does"),
    ],
)
def test_what_is_no_cluster_is_said_to_be_none(cluster, options, problem):
    with pytest.raises(ResourceError, match=problem):
        open_access(cluster(None, **options).url, insecure=True)


def test_nobody_at_the_address_is_one_line(folder, capsys):
    assert call(["logs", "--address", "http://127.0.0.1:1"]) == 4
    assert capsys.readouterr().err == "hkrun: http://127.0.0.1:1: no answer: [Errno 111] Connection refused\n"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("head", "http://head:8265"),
        ("head:1234", "http://head:1234"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.lab.org", "https://ray.lab.org"),
        ("https://lab.org/ray/", "https://lab.org/ray"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses_are_read(address, url):
    assert read_address(address) == url


@pytest.mark.parametrize(
    "address",
    [
        "ray://head:10001",
        "http://",
        "http://user:secret@head",
        "http://head?token=secret",
        "head:port",
        "a b",
        "",
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(address):
    with pytest.raises(InputError, match="--address") as problem:
        read_address(address)
    assert "secret" not in problem.value.message


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://localhost:8265", True),
        ("http://127.0.0.5:8265", True),
        ("http://[::1]:8265", True),
        ("https://head", True),
        ("http://10.0.0.1:8265", False),
        ("http://head:8265", False),
        ("http://localhost.evil.org", False),
    ],
)
def test_it_is_known_where_a_token_can_be_read_on_its_way(url, private):
    assert is_private_way(url) is private


def test_sending_the_token_in_the_clear_is_said(monkeypatch, caplog):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    answers = iter([(401, ""), (200, "2.60.0")])
    monkeypatch.setattr(access, "_ask", lambda url, headers: next(answers))
    open_access("http://head:8265", insecure=False)
    assert "the token goes to http://head:8265 unencrypted" in caplog.text
    assert "mine" not in caplog.text


def test_the_users_token_file_is_closed_to_others(folder, monkeypatch):
    path = folder / ".ray" / "auth_token"
    assert find_token() is None
    path.parent.mkdir()
    path.write_text("mine\n")
    path.chmod(0o644)
    assert find_token() == "mine"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "none"))
    with pytest.raises(ResourceError, match=r"RAY_AUTH_TOKEN_PATH=.*no such file"):
        find_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "first")
    assert find_token() == "first"


def test_a_home_without_a_place_for_the_token_is_no_bug_of_hkruns(folder):
    (folder / ".ray").write_text("in the way")
    with pytest.raises(
        ResourceError, match=r"cannot write Ray's token .*RAY_AUTH_TOKEN may hold one instead"
    ):
        ensure_token()


# --- what is sent -------------------------------------------------------------------------------------------


def work(*words: str) -> Work:
    with program.make_context("hkrun", ["submit", "--", *words], obj=_invocation()) as context:
        return read_work(context.obj, words)


def _invocation():
    from hkrun.cli.invocation import Invocation

    return Invocation()


def test_places_become_absolute_and_answers_stay_here(folder):
    found = work(
        "run", "method=supervised", "--store", "here", "--data=data", "--yes", "--json", "--seeds", "2"
    )
    assert found.arguments == (
        *("run", "method=supervised", "--seeds", "2"),
        *("--store", str(folder / "here"), "--data", str(folder / "data")),
    )
    assert (found.store, found.data) == (str(folder / "here"), str(folder / "data"))


def test_a_job_is_called_after_its_study(folder):
    titles = {
        ("sweep", "stability"): "stability",
        ("sweep", "stability", "--epochs", "2"): "stability-epochs-2",
        ("sweep", "stability", "--epochs", "2", "--name", "trial"): "trial",
        ("run", "--name", "first"): "first",
        ("run",): "run",
    }
    assert {words: work(*words).title for words in titles} == titles


def test_a_store_named_before_the_verb_is_the_jobs(folder):
    assert work("run").store == str(folder / "hkrun-store")
    assert (
        call(["submit", "--store", "s3://k:secret@b/x", "--address", "http://127.0.0.1:1", "--", "run"]) == 4
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("report", "x"), "only sweep, run, teacher, resume run on a cluster"),
        (("sweeep", "x"), "did you mean 'sweep'"),
        (("sweep", "no-such-space"), "no such search space"),
        (("run", "student.epoch=3"), "unknown key"),
        (("run", "--no-such-option"), "No such option"),
        (("sweep",), "Missing argument"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(folder, capsys, words, problem):
    assert call(["submit", "--address", "http://127.0.0.1:1", "--", *words]) == 2
    assert problem in capsys.readouterr().err


def test_options_after_the_verb_are_the_verbs_with_and_without_the_dashes(folder, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("hkrun.cli.submitting.read_work", lambda invocation, words: seen.append(words))
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    for dashes in (["--"], []):
        call(["submit", *dashes, "run", "--seeds", "2"])
    assert seen == [("run", "--seeds", "2")] * 2


def test_without_an_address_it_says_how_to_name_one(folder, monkeypatch, capsys):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    for verb in (["submit", "--", "run"], ["logs"], ["cancel"]):
        assert call(verb) == 2
        assert "name the cluster with --address URL" in capsys.readouterr().err


def test_no_secret_goes_along_and_a_place_that_holds_one_is_refused():
    environ = {
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_REGION": "eu-central-1",
        "MLFLOW_TRACKING_URI": "https://mlflow.lab.org",
        "MLFLOW_TRACKING_PASSWORD": "s3cr3t",
        "HKRUN_STORE": "s3://a:s3cr3t@b",
        "HOME": "/home/me",
    }
    plain = Work(arguments=("run",), space=None, title="run", store="s3://b/x", data=None)
    passed = find_variables(environ, plain)
    assert {name for name in passed if not name.startswith("RAY_")} == {"AWS_REGION", "MLFLOW_TRACKING_URI"}
    with_endpoint = dataclasses.replace(plain, store="s3://b/x?endpoint_override=s3.lab.org:9000&scheme=http")
    assert find_variables(environ, with_endpoint) == passed
    for store, data, more in (
        ("s3://key:s3cr3t@b/x", None, {}),
        ("s3://b/x?secret_key=s3cr3t", None, {}),
        ("s3://b/x?endpoint_override=http://u:s3cr3t@h:1", None, {}),
        ("s3://b/x?endpoint_override=http%3A%2F%2Fu%3As3cr3t%40h%3A1", None, {}),
        ("s3://b/x?endpoint_override=s3cr3t.org&endpoint_override=h:1", None, {}),
        ("/x", "s3://b/x?endpoint_override=u:s3cr3t@h:1&scheme=http", {}),
        ("/x", None, {"AWS_ENDPOINT_URL": "http://u:s3cr3t@h:1"}),
        ("/x", None, {"AWS_ENDPOINT_URL_S3": "u:s3cr3t@h:1"}),
        ("/x", "s3://key:s3cr3t@b/x", {}),
        ("/x", None, {"MLFLOW_TRACKING_URI": "https://me:s3cr3t@mlflow.lab.org"}),
    ):
        with pytest.raises(InputError, match="which all users of the cluster could read") as problem:
            find_variables(
                environ | more, Work(arguments=("run",), space=None, title="r", store=store, data=data)
            )
        assert "s3cr3t" not in problem.value.message


@pytest.mark.parametrize("store", ["s3://", "s3://b/a/../c", "s3://b?endpoint_override=ftp://h"])
def test_a_store_on_s3_that_cannot_be_understood_is_refused_before_anything_is_sent(store):
    with pytest.raises(InputError, match=r"^--store: "):
        find_variables({}, Work(arguments=("run",), space=None, title="r", store=store, data=None))


def test_resume_takes_along_the_own_parts_of_the_sweeps_that_it_goes_on_with(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "resumednets.py").write_text(SMALL_NETS)
    (folder / "mine.toml").write_text(
        'dataset = "digits"\nseeds = 1\n[base]\nmethod = "supervised"\nstudent.epochs = 2\n'
        'student.network = "resumednets:SmallNet"\nteacher.network = "resumednets:SmallNet"\n'
        '[[cells]]\nname = "a"\n'
    )
    save_plan(open_store(folder / "here"), load_sweep("mine.toml"))
    found = work("resume", "--store", "here")
    assert found.parts == ("resumednets:SmallNet",)
    assert work("resume", "mine", "--store", "here").parts == found.parts
    assert found.arguments == ("resume", "--store", str(folder / "here"))


def test_resume_checks_the_teachers_files_and_names_of_the_store(folder):
    (folder / "weights.safetensors").write_bytes(b"")
    store = open_store(folder / "here")
    cell = make_sweep(num_cells=1).cells[0].cell
    cell = dataclasses.replace(cell, teacher=dataclasses.replace(cell.teacher, file="weights.safetensors"))
    sweep = make_sweep(num_cells=1)
    sweep = dataclasses.replace(sweep, cells=(dataclasses.replace(sweep.cells[0], cell=cell),))
    save_plan(store, sweep)
    with pytest.raises(
        InputError, match=r"teacher\.file=weights\.safetensors: on a cluster, the absolute path"
    ):
        work("resume", "--store", "here")
    with pytest.raises(InputError, match="no such study"):
        work("resume", "other", "--store", "here")


def test_resume_says_where_it_cannot_know_what_must_go_along(folder, caplog):
    assert work("resume", "--store", "/nfs/not-mounted-here").parts == ()
    (record,) = caplog.records
    assert "not known which own parts its sweeps use, and none go along" in record.getMessage()
    assert "/nfs/not-mounted-here" in record.getMessage()


class InterruptedServer:
    """A job server whose user presses Ctrl-C once, in one of its methods."""

    url = "http://head:8265"

    def __init__(self, method: str):
        self.method = method
        self.sent: list[str] = []
        self.stopped: list[str] = []

    def submit(self, command, *, job_id, runtime_env, metadata):
        self.sent.append(job_id)
        self._interrupt("submit")

    def follow(self, job_id, write):
        self._interrupt("follow")

    def stop(self, job_id):
        self.stopped.append(job_id)

    def _interrupt(self, method):
        if method == self.method:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "told"), [("submit", "If job {} was sent, it goes on."), ("follow", "Job {} goes on.")]
)
def test_who_interrupts_the_sending_or_the_following_knows_the_jobs_name(
    folder, monkeypatch, capsys, method, told
):
    server = InterruptedServer(method)
    node = {"name": "a", "python": "3", "versions": {"ray": "2", "torch": "2"}}
    monkeypatch.setattr("hkrun.cli.submitting.open_server", lambda _: server)
    monkeypatch.setattr(submitting, "_check", lambda *_, **__: [node])
    assert call(["submit", "--address", "x", "--", "run"]) == 75
    (job_id,) = server.sent
    lines = capsys.readouterr().err.splitlines()
    assert f"Follow it  hkrun logs {job_id} --address http://head:8265" in lines
    assert f"Detached. {told.format(job_id)}" in lines
    assert server.stopped == []


def test_who_interrupts_the_sending_of_the_check_leaves_no_job(folder, monkeypatch, capsys):
    server = InterruptedServer("submit")
    monkeypatch.setattr("hkrun.cli.submitting.open_server", lambda _: server)
    assert call(["submit", "--address", "x", "--", "run"]) == 75
    assert server.stopped == server.sent
    assert [job_id[:6] for job_id in server.sent] == ["check-"]
    assert "Detached" not in capsys.readouterr().err


def test_a_search_space_goes_along_with_its_recipes(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("staged")
    (folder / "mine" / "recipes").mkdir(parents=True)
    (folder / "mine" / "a.toml").write_text("title = 'a'")
    (folder / "mine" / "recipes" / "stripes.toml").write_text("window = 3")
    assert shipping.ship_space("stability", target) == "stability"
    assert shipping.ship_space("mine/a.toml", target) == "mine/a.toml"
    assert (target / "mine" / "a.toml").read_text() == "title = 'a'"
    assert (target / "mine" / "recipes" / "stripes.toml").exists()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "b.toml"
    elsewhere.write_text("title = 'b'")
    assert shipping.ship_space(str(elsewhere), target) == "submitted/b.toml"
    assert (target / "submitted" / "b.toml").read_text() == "title = 'b'"


def test_own_parts_go_along_with_what_they_import_from_beside_them(folder, tmp_path_factory, monkeypatch):
    target = tmp_path_factory.mktemp("staged")
    (folder / "sentpart.py").write_text("import sentbeside\nimport numpy\nclass Net: pass\n")
    (folder / "sentbeside.py").write_text("X = 1\n")
    (folder / "sentpackage" / "__pycache__").mkdir(parents=True)
    (folder / "sentpackage" / "__init__.py").write_text("")
    (folder / "sentpackage" / "nets.py").write_text("class Net: pass\n")
    (folder / "sentpackage" / ".secret").write_text("no code")
    (folder / "other.py").write_text("raise SystemExit\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "sentfunction.py").write_text("def loss(student): ...\n")
    (folder / "sentloss.py").write_text(
        "from hkrun.terms import Term\nfrom sentfunction import loss\n"
        "TERM = Term(summary='', function=loss, student=('logits',))\n"
    )
    monkeypatch.syspath_prepend(str(elsewhere))
    monkeypatch.syspath_prepend(str(folder))
    shipped = shipping.ship_parts(["sentpart:Net", "sentpackage.nets:Net", "sentloss:TERM"], target)
    assert shipped == ["sentbeside.py", "sentfunction.py", "sentloss.py", "sentpackage", "sentpart.py"]
    assert sorted(path.name for path in target.rglob("*")) == ["__init__.py", "nets.py", *shipped]


def test_hkrun_goes_along_as_it_is_here(tmp_path):
    shipping.ship_hkrun(tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    here = {
        str(path.relative_to(shipping.PACKAGE.parent))
        for path in shipping.PACKAGE.rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert here <= names
    assert "hkrun/data/digits.npz" in names
    assert "hkrun/search_spaces/stability.toml" in names
    assert not [name for name in names if "__pycache__" in name]
    # It runs there, with no other hkrun in sight.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import hkrun, hkrun.spaces as s; print(hkrun.__file__); s.load_sweep('stability')",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "hkrun" / "__init__.py")


def test_what_is_too_large_to_be_sent_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "LARGEST_BYTES", 3_000_000)
    (tmp_path / "data.bin").write_bytes(bytes(4_000_000))
    with pytest.raises(InputError, match=r"4 MB and may be 3 MB: data\.bin \(4 MB\); keep data out of mypkg"):
        shipping.check_size(tmp_path, user_files=["mypkg"])


def test_the_state_of_the_code_is_said(tmp_path):
    assert read_state(tmp_path) is None

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    git("init")
    assert read_state(tmp_path) is None  # no commit yet
    (tmp_path / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    state = read_state(tmp_path)
    assert (len(state.commit), state.changed, state.label) == (40, (), state.commit[:12])
    (tmp_path / "a.py").write_text("2")
    (tmp_path / "b.py").write_text("new")
    state = read_state(tmp_path)
    assert (state.changed, state.label) == (("a.py", "b.py"), f"{state.commit[:12]}+dirty")
    assert state.document() == {"commit": state.commit, "dirty": True}


def test_of_the_lock_goes_along_what_hkrun_needs():
    lock = "\n".join(
        [
            *(
                "click==8.5.1 \\",
                "    --hash=sha256:aa",
                "    # via",
                "    #   hkrun (pyproject.toml)",
                "    #   ray",
            ),
            *("pytest==9.0 \\", "    --hash=sha256:bb", "    # via hkrun (pyproject.toml:dev)"),
            *("pluggy==1.6 \\", "    --hash=sha256:cc", "    # via pytest"),
            *("ray[data]==2.60.0 \\", "    --hash=sha256:dd", "    # via hkrun (pyproject.toml)"),
            *("attrs==25.1 ; python_version > '3' \\", "    --hash=sha256:ee", "    # via ray"),
        ]
    )
    reduced = reduce_lock(lock)
    assert [line for line in reduced.splitlines() if "==" in line] == [
        "click==8.5.1 \\",
        "attrs==25.1 ; python_version > '3' \\",
    ]
    assert "--hash=sha256:ee" in reduced
    assert read_versions(lock)["ray"] == "2.60.0"


# --- what comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "driver_code", "error_type", "began", "expected"),
    [
        ("finished", 0, None, True, (0, "")),
        ("failed", 5, "JOB_ENTRYPOINT_COMMAND_ERROR", True, (5, "")),
        ("failed", 75, "JOB_ENTRYPOINT_COMMAND_ERROR", True, (75, "")),
        (
            "failed",
            0,
            "JOB_SUPERVISOR_ACTOR_DIED",
            True,
            (75, "it failed (job supervisor actor died) although its command ended with 0"),
        ),
        (
            "failed",
            -9,
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            True,
            (75, "its driver was ended by SIGKILL; what is finished is kept"),
        ),
        (
            "failed",
            None,
            "JOB_SUPERVISOR_ACTOR_DIED",
            True,
            (75, "its driver was lost (job supervisor actor died); what is finished is kept"),
        ),
        (
            "failed",
            None,
            "RUNTIME_ENV_SETUP_FAILURE",
            False,
            (4, "it could not be started (runtime env setup failure)"),
        ),
        ("stopped", None, None, True, (75, "stopped; what is finished is kept")),
        ("running", None, None, True, (None, "")),
        ("waiting", None, None, False, (None, "")),
    ],
)
def test_the_exit_status_is_that_of_the_job(state, driver_code, error_type, began, expected):
    assert find_exit_code(state, driver_code=driver_code, error_type=error_type, began=began) == expected


def test_the_answer_of_the_check_is_found_among_other_lines():
    answer = {"exit_code": 0, "nodes": []}
    assert read_answer(f"noise\nHKRUN-CHECK {json.dumps(answer)}\nmore noise\n") == answer
    assert read_answer("noise\n") is None


def test_jobs_are_named_by_what_they_run():
    assert name_job("stability").startswith("stability-")
    for title in ("mine: ../../x", "", "ä"):
        assert check_id(name_job(title))
