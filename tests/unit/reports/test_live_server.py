"""A run that is followed: the server is asked as a browser would ask it."""

from collections.abc import Iterator
from html import unescape
from http.client import HTTPConnection
from threading import Thread

import pytest

from lowmem_rl.errors import SetupError
from lowmem_rl.reports.live_server import Follower, LiveServer, follow
from lowmem_rl.storage.run_dir import RunDir, append_row, write_json
from tests.run_maker import begin, make_run, metric_row


@pytest.fixture
def server(tmp_path) -> Iterator[LiveServer]:
    run = tmp_path / "run"
    run.mkdir()
    server = LiveServer(Follower(run), 0)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server: LiveServer, path: str = "/", **headers: str):
    connection = HTTPConnection(*server.server_address, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def rested(server: LiveServer) -> None:
    """Lets the next page be rendered at once."""
    server.follower.rests_until = 0.0


def test_the_page_exists_before_the_run_and_follows_it(server) -> None:
    run = server.follower.run
    assert "The run has not begun" in ask(server)[2]
    begin(run, {})
    rested(server)
    assert "No step of training is recorded." in ask(server)[2]
    append_row(run.metrics, metric_row(1, 20))
    rested(server)
    status, headers, text = ask(server)
    assert "is at step 1 of" in text
    assert headers["X-Run-Ended"] == "no"
    write_json(run.health, {"step": 1})
    assert ask(server)[1]["X-Run-Ended"] == "yes"


def test_an_unchanged_page_is_not_sent_again(server) -> None:
    begin(server.follower.run, {})
    tag = ask(server)[1]["ETag"]
    assert ask(server, **{"If-None-Match": tag})[::2] == (304, "")
    append_row(server.follower.run.metrics, metric_row(1, 20))
    rested(server)
    assert ask(server, **{"If-None-Match": tag})[0] == 200


def test_pages_are_rendered_seldom_enough_not_to_slow_the_run(server) -> None:
    begin(server.follower.run, {})
    first = ask(server)[1]["ETag"]
    append_row(server.follower.run.metrics, metric_row(1, 20))
    server.follower.rests_until += 60
    assert ask(server)[1]["ETag"] == first


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_only_its_own_address_is_answered(server, host) -> None:
    status, _, text = ask(server, Host=host.format(port=server.server_address[1]))
    assert (status, "<html" in text) == (421, False)


@pytest.mark.parametrize("path", ["/config.json", "/../config.json", "/?", "/%2e%2e/etc/passwd"])
def test_no_file_is_served(server, path) -> None:
    begin(server.follower.run, {})
    assert ask(server, path)[0] == 404


def test_the_page_may_ask_only_its_server_and_be_in_no_frame(server) -> None:
    begin(server.follower.run, {})
    _, headers, text = ask(server)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self'" in unescape(text)


def test_a_damaged_file_is_named_on_the_page(server) -> None:
    begin(server.follower.run, {})
    server.follower.run.estimate.write_text("{")
    assert "estimate.json cannot be read" in ask(server)[2]


def test_it_listens_on_loopback_and_reports_a_port_that_is_taken(server, tmp_path) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(SetupError, match="cannot be used"):
        follow(tmp_path, server.server_address[1], lambda address: None)


def test_following_ends_with_the_run_and_does_not_start_after_it(tmp_path) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    reported: list[str] = []

    def end(address: str) -> None:
        reported.append(address)
        write_json(run.health, {"step": 20})

    for _ in range(2):
        follow(run.path, None, end, grace_s=0.0)
    assert len(reported) == 1
    assert reported[0].startswith("http://127.0.0.1:")
