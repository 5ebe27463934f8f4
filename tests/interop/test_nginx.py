"""The real nginx in front, with nothing said about streaming in its configuration.

nginx of Debian 12 speaks HTTP/1.0 to what is behind it unless told otherwise, and buffers unless
told otherwise; our headers are what tells it. A configuration made for streams is better (see
docs/operate/behind-a-proxy.md); this is what happens to those who have none.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raw_http import EVENT_STREAM, ask, connect, events
from running_servers import free_port, running

CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; {more} }}
  }}
}}
"""

VERSIONS = {"1.0": "", "1.1": 'proxy_http_version 1.1; proxy_set_header Connection "";'}
PATIENCE_S = 10.0


@contextmanager
def nginx(folder: Path, upstream: int, more: str) -> Generator[int]:
    """Run nginx in front of a port; gives its own."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        message = "needs nginx: apt-get install nginx-light"
        if os.environ.get("PENSTOCK_STRICT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(
        CONFIGURATION.format(folder=folder, port=port, upstream=upstream, more=more), "utf-8"
    )
    process = subprocess.Popen(
        [binary, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log"],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["serve", "uvicorn"])
async def test_an_unprepared_nginx_streams_resumes_and_passes_the_hang_up(
    kind: str, version: str, tmp_path: Path
) -> None:
    """Each record arrives before the next is published; a resume goes on; leaving is noticed."""
    with running(kind) as server, nginx(tmp_path, server.port, VERSIONS[version]) as port:
        await _until_it_answers(port)
        stream = f"/v1/stream/nginx/{kind}"
        json = {"Content-Type": "application/json"}
        assert (await ask(server.port, "PUT", stream, json)).status == 201
        async with events(port, stream, EVENT_STREAM) as reader:
            assert reader.answer["content-type"] == "text/event-stream"
            for number in range(3):
                payload = f'{{"n":{number}}}'
                await ask(server.port, "POST", stream, json, payload.encode())
                event = await reader.next()
                assert event.data == payload
        await _until_nobody_reads(server.port, f"nginx/{kind}")

        await ask(server.port, "POST", stream, json, b'{"n":3}')
        resume = {**EVENT_STREAM, "Last-Event-ID": event.last_event_id}
        async with events(port, stream, resume) as reader:
            assert (await reader.next()).data == '{"n":3}'
            await ask(server.port, "POST", f"/v1/cancel/nginx/{kind}")
            (end,) = await reader.rest()
            assert (end.type, end.data) == ("end", '{"reason":"cancelled"}')
        done = {**EVENT_STREAM, "Last-Event-ID": end.last_event_id}
        assert (await ask(port, "GET", stream, done)).status == 204


async def _until_it_answers(port: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with connect(port) as connection:
                    if (await connection.ask("GET", "/healthz")).status == 200:
                        return
            except OSError:
                await asyncio.sleep(0.02)  # until nginx listens: it has no other way to say so


async def _until_nobody_reads(port: int, name: str) -> None:
    left_at = time.monotonic()
    while (await ask(port, "GET", f"/v1/streams/{name}")).json["readers"]:
        assert time.monotonic() - left_at < 1.0, "the hang-up did not arrive within a second"
        await asyncio.sleep(0.02)
