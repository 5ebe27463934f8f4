"""The nginx configuration that the documentation shows, run by the real nginx."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from docs.documents import BIN, ROOT, blocks, serving
from running_servers import free_port

PATIENCE_S = 10.0
AROUND = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; {shown} }}
}}
"""
NAME = "stream.example.com"
TYPE = "application/octet-stream"


@contextmanager
def nginx(folder: Path, upstream: str) -> Generator[str]:
    """Run nginx with the page's configuration in front of a server; gives host and port."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        message = "needs nginx: apt-get install nginx-light"
        if os.environ.get("PENSTOCK_STRICT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    (block,) = blocks(ROOT / "docs" / "operate" / "behind-a-proxy.md", "nginx")
    shown = block.text.replace("http://127.0.0.1:4437", upstream)
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(AROUND.format(folder=folder, port=port, shown=shown), "utf-8")
    process = subprocess.Popen(
        [binary, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log"],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def asked(
    netloc: str, method: str, path: str, body: bytes | None = None
) -> Generator[http.client.HTTPResponse]:
    """Send a request under the public name, as soon as somebody listens."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection(netloc, timeout=PATIENCE_S)
        try:
            headers = {"Host": NAME, "Accept": "text/event-stream", "Content-Type": TYPE}
            connection.request(method, path, body, headers)
        except ConnectionRefusedError:
            connection.close()
            assert time.monotonic() < give_up, "nginx does not start"
            time.sleep(0.02)  # until nginx listens: it has no other way to say so
            continue
        with closing(connection), connection.getresponse() as response:
            yield response
            return


def status(netloc: str, method: str, path: str, body: bytes | None = None) -> int:
    with asked(netloc, method, path, body) as answer:
        return answer.status


def test_the_documented_nginx_passes_each_event_on_and_keeps_the_operators_pages(
    tmp_path: Path,
) -> None:
    command = [str(BIN / "penstock"), "serve", "--port", "0", "--allowed-host", NAME]
    with serving(command, tmp_path) as address, nginx(tmp_path, address) as proxy:
        direct = urlsplit(address).netloc
        stream = "/v1/stream/clock"
        assert status(direct, "PUT", stream) == 201  # of the type of every request here
        with asked(proxy, "GET", stream) as reader:
            assert reader.status == 200
            for number in range(3):
                # Read before the next is published: nothing is held until more comes.
                assert status(proxy, "POST", stream, b"%d" % number) == 204
                while not (line := reader.readline()).startswith(b"data:"):
                    assert line, "the body ended"
        for path in ("/metrics", "/v1/streams", "/v1/streams/clock"):
            assert status(direct, "GET", path) == 200
            with asked(proxy, "GET", path) as answer:
                assert (answer.status, b"nginx" in answer.read()) == (403, True)
