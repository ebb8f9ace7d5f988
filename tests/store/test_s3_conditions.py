"""S3 servers that refuse a write because it has a condition."""

import http.client
import http.server
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from s3_server import SECRET, S3Server

from hkrun.errors import StoreError
from hkrun.store import lock, open_store, s3

FOLDER = "sweeps/stability-digits"
NOT_IMPLEMENTED = (501, "NotImplemented")
INVALID = (400, "InvalidArgument")


class Refusal:
    """A way to a server on which requests with some header get one answer instead.

    Attributes:
        answer: The status and the code of that answer.
        header: Which header it is given to.
        times: How often; then requests with it go through.
        refused: How often it was given.
    """

    def __init__(self, server: S3Server) -> None:
        self.answer = NOT_IMPLEMENTED
        self.header = "If-None-Match"
        self.times = 1_000_000
        self.refused = 0
        target = urlsplit(server.endpoint).netloc
        refusal = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command == "PUT" and refusal.header in self.headers and refusal.times > 0:
                    refusal.times -= 1
                    refusal.refused += 1
                    status, code = refusal.answer
                    headers, text = [], f"<Error><Code>{code}</Code></Error>".encode()
                else:
                    connection = http.client.HTTPConnection(target)
                    connection.request(self.command, self.path, content, dict(self.headers))
                    response = connection.getresponse()
                    status, headers, text = response.status, response.getheaders(), response.read()
                    connection.close()
                self.send_response_only(status)
                length = str(len(text))
                for name, value in headers:
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                    elif name.lower() == "content-length":
                        length = value  # of what a HEAD does not send
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def refusal(s3_server: S3Server) -> Iterator[Refusal]:
    refusal = Refusal(s3_server)
    yield refusal
    refusal.close()
    s3._client.cache_clear()


@pytest.fixture
def uri(s3_server: S3Server, refusal: Refusal) -> str:
    return s3_server.place().full_uri.replace(
        s3_server.endpoint.removeprefix("http://"), refusal.endpoint.removeprefix("http://")
    )


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
@pytest.mark.parametrize("answer", [NOT_IMPLEMENTED, INVALID])
def test_a_server_that_does_not_know_conditions_is_refused_at_once_by_name(
    uri: str, refusal: Refusal, header: str, answer: tuple[int, str]
) -> None:
    refusal.header, refusal.answer = header, answer
    store = open_store(uri)
    with pytest.raises(StoreError) as caught, store.hold(FOLDER):
        pass
    assert refusal.refused <= 3, "it was tried again and again"
    (line,) = caught.value.problems
    assert line.startswith(f"cannot write {store.place}/{FOLDER}/driver.lock: the server does not know ")
    assert line.endswith(
        f"conditional writes ({answer[0]} to {header}), which keep two drivers apart; use another server, "
        "or a directory"
    )
    assert SECRET not in line
    assert caught.value.exit_code == 6


def test_a_commit_without_a_hold_is_refused_in_the_same_way(uri: str) -> None:
    store = open_store(uri)
    with pytest.raises(StoreError, match=r"teachers/0123456789ab/weights\.pt: the server does not know cond"):
        store.commit("teachers/0123456789ab", {"weights.pt": b"weights"})
    assert store.names("teachers/0123456789ab") == []


@pytest.mark.parametrize("answer", [(503, "SlowDown"), (500, "InternalError")])
def test_a_passing_trouble_at_the_first_condition_is_waited_out(
    uri: str, refusal: Refusal, answer: tuple[int, str]
) -> None:
    refusal.answer, refusal.times = answer, 3
    store = open_store(uri)
    with store.hold(FOLDER):
        store.commit(FOLDER, {"plan.json": b"plan"})
    assert refusal.times == 0
    assert store.read(FOLDER, "plan.json") == b"plan"


def test_a_bad_request_for_another_reason_says_that_reason(uri: str, refusal: Refusal) -> None:
    refusal.answer = (400, "ExpiredToken")
    with pytest.raises(StoreError, match=r"400 Bad Request: .*ExpiredToken") as caught:
        open_store(uri).commit("teachers/0123456789ab", {"weights.pt": b"weights"})
    assert "conditional" not in caught.value.message


def test_a_driver_that_is_refused_leaves_nothing_that_keeps_the_next_one_off(
    uri: str, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 1e6)
    refusal.times = 1
    store = open_store(uri)
    with pytest.raises(StoreError, match="conditional writes"), store.hold(FOLDER):
        pass
    with store.hold(FOLDER):
        pass
