"""The tests cannot reach the network, in this process and in its subprocesses."""

import socket
import subprocess
import sys

import pytest

REFUSED = "The tests have no network"


def test_a_connection_to_another_machine_is_refused():
    with socket.socket() as sock, pytest.raises(OSError, match=REFUSED):
        sock.connect(("192.0.2.1", 443))


@pytest.mark.parametrize(
    "lookup", [lambda: socket.getaddrinfo("example.org", 443), lambda: socket.gethostbyname("a.b")]
)
def test_the_name_of_another_machine_is_not_looked_up(lookup):
    with pytest.raises(OSError, match=REFUSED):
        lookup()


def test_a_datagram_to_another_machine_is_refused():
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(OSError, match=REFUSED):
        sock.sendto(b"", ("192.0.2.1", 53))


def test_connections_to_this_machine_work():
    with socket.create_server(("localhost", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"


DOWNLOADS = {
    "urllib": "from urllib.request import urlopen; urlopen('https://example.org')",
    "huggingface_hub": "from huggingface_hub import HfApi; HfApi().model_info('gpt2')",
    "torch.hub": "import torch; torch.hub.download_url_to_file('https://example.org/x', 'x')",
}


@pytest.mark.parametrize("library", DOWNLOADS)
def test_a_subprocess_that_downloads_fails_at_once(library):
    done = subprocess.run(
        [sys.executable, "-c", "import os; os.environ['HF_HUB_OFFLINE'] = '0'\n" + DOWNLOADS[library]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert REFUSED in done.stderr
