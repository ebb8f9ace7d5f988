"""The verbs about jobs, on a job server whose answers a test decides."""

import itertools
import json

import pytest

import hkrun.cli.jobs
from hkrun.cli.program import call
from hkrun.cluster.jobs import Job, JobServer, find_user, server
from hkrun.errors import InputError, ResourceError

ADDRESS = ("--address", "http://127.0.0.1:1")


def job(job_id="mine-1", state="running", **changes):
    told = {"exit_code": None, "message": "", "command": "hkrun run", "metadata": {"by": find_user()}}
    return Job(id=job_id, state=state, started_at=1.0, ended_at=None, **told | changes)


def theirs(job_id="theirs-1", state="running"):
    return job(job_id, state, metadata={"by": "somebody-else"})


class FakeJobs:
    """A job server with jobs that end when they are told to, unless they are stubborn."""

    url = "http://head:8265"

    def __init__(self, *jobs: Job, stubborn: bool = False):
        self.all = {each.id: each for each in jobs}
        self.stopped: list[str] = []
        self.stubborn = stubborn

    def jobs(self):
        return list(self.all.values())

    def job(self, job_id):
        if job_id not in self.all:
            raise InputError(f"{job_id}: no such job")
        return self.all[job_id]

    def log(self, job_id):
        return f"log of {job_id}\n"

    def stop(self, job_id):
        self.stopped.append(job_id)

    def wait(self, job_id, *, timeout_s):
        return self.all[job_id] if self.stubborn else job(job_id, "stopped", exit_code=75)


@pytest.fixture
def serve(folder, monkeypatch):
    def use(*jobs, **options):
        fake = FakeJobs(*jobs, **options)
        monkeypatch.setattr(hkrun.cli.jobs, "open_server", lambda _: fake)
        return fake

    return use


# --- whose job ----------------------------------------------------------------------------------------------


def test_without_a_name_cancel_stops_the_users_own_job_among_others(serve):
    fake = serve(theirs(), job(), theirs("theirs-2"))
    assert call(["cancel", *ADDRESS]) == 0
    assert fake.stopped == ["mine-1"]


@pytest.mark.parametrize("by", [{"by": "somebody-else"}, {"by": ""}, {}])
def test_without_a_name_cancel_never_stops_a_job_of_others(serve, capsys, by):
    fake = serve(job("theirs-1", metadata=by), job("mine-0", "finished", exit_code=0))
    assert call(["cancel", *ADDRESS]) == 2
    assert "no job of hkrun runs there that you have sent; name one of the others: theirs-1 (" in (
        capsys.readouterr().err
    )
    assert fake.stopped == []
    assert call(["cancel", "theirs-1", *ADDRESS]) == 0
    assert fake.stopped == ["theirs-1"]


def test_without_a_name_logs_shows_the_users_newest_job(serve, capsys):
    serve(job("mine-1"), job("mine-2"), theirs())
    assert call(["logs", "--no-wait", *ADDRESS]) == 0
    assert capsys.readouterr().out == "log of mine-2\n"
    serve(theirs())
    assert call(["logs", "--no-wait", *ADDRESS]) == 2
    assert "theirs-1 (somebody-else)" in capsys.readouterr().err
    serve()
    assert call(["logs", *ADDRESS]) == 2
    assert "http://head:8265 has no job of hkrun\n" in capsys.readouterr().err


def test_a_study_stands_for_the_newest_job_that_the_user_has_sent_of_it(serve, capsys):
    first, second, other = (
        f"{study}-{when}"
        for study, when in (
            ("stability", "1122-084501-9f3a"),
            ("stability", "1123-084501-aaaa"),
            ("stability-epochs-2", "1124-084501-bbbb"),
        )
    )
    fake = serve(job(first, "finished"), job(second), job(other), theirs("stability-1125-084501-cccc"))
    assert call(["cancel", "stability", *ADDRESS]) == 0
    assert call(["cancel", "stability-epochs-2", *ADDRESS]) == 0
    assert fake.stopped == [second, other]
    assert call(["logs", first, "--no-wait", *ADDRESS]) == 0
    assert capsys.readouterr().out.endswith(f"log of {first}\n")
    assert call(["cancel", "stabilty-1122-084501-9f3a", *ADDRESS]) == 2
    assert f"there are: {first}, {second}, {other}, stability-1125" in (told := capsys.readouterr().err)
    assert f"did you mean '{first}'?" in told
    assert call(["status", "mine", *ADDRESS]) == 2
    assert len(fake.stopped) == 2


def test_of_several_own_jobs_cancel_wants_a_name(serve, capsys):
    fake = serve(job("mine-1"), job("mine-2"), theirs())
    assert call(["cancel", *ADDRESS]) == 2
    assert "name one: mine-1, mine-2\n" in capsys.readouterr().err
    assert fake.stopped == []


def test_a_job_that_does_not_stop_in_time_is_no_success(serve, capsys):
    serve(job(), stubborn=True)
    assert call(["cancel", *ADDRESS]) == 75
    assert "was asked to stop and has not ended yet" in capsys.readouterr().out
    assert call(["cancel", "--json", *ADDRESS]) == 75
    assert json.loads(capsys.readouterr().out)["state"] == "running"
    assert call(["cancel", "--no-wait", *ADDRESS]) == 0


# --- following and waiting ----------------------------------------------------------------------------------


class FakeClient:
    """Ray's client: each answer is a state or an error, and the log comes in pieces."""

    def __init__(self, answers=(), texts=()):
        self.answers, self.texts = iter(answers), texts

    async def tail_job_logs(self, job_id):
        for text in self.texts:
            if isinstance(text, Exception):
                raise text
            yield text

    def get_job_logs(self, job_id):
        return "".join(text for text in self.texts if isinstance(text, str))


@pytest.fixture
def following(monkeypatch):
    """Makes a `JobServer` of answers; each question and each pause takes a second."""
    seconds = itertools.count()
    monkeypatch.setattr(server.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(server.time, "sleep", lambda pause_s: None)

    def make(answers=(), texts=()):
        made = JobServer.__new__(JobServer)
        made.url, made._client = "http://head:8265", FakeClient(answers, texts)

        def ask(job_id):
            answer = next(made._client.answers)
            if isinstance(answer, Exception):
                raise answer
            return job(job_id, answer)

        made.job = ask
        return made

    return make


LOST = ResourceError("no answer")


def test_a_reader_that_goes_away_ends_the_following(following):
    def write(text):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        following(["running"] * 3, ["one", "two"]).follow("x", write)


def test_a_connection_that_breaks_is_made_again_and_nothing_is_written_twice(following):
    written = []
    there = following(["running", LOST, "finished"], ["one", "two", ConnectionResetError()])
    assert there.follow("x", written.append).state == "finished"
    assert "".join(written) == "onetwo"


def test_one_request_that_fails_does_not_end_the_waiting(following):
    assert following(["running", LOST, LOST, "finished"]).wait("x", timeout_s=1000).state == "finished"


def test_waiting_ends_after_a_minute_without_an_answer_and_at_its_time(following):
    with pytest.raises(ResourceError, match="no answer"):
        following(itertools.chain(["running"], itertools.repeat(LOST))).wait("x", timeout_s=1000)
    assert following(itertools.repeat("running")).wait("x", timeout_s=10).state == "running"
