"""nginx as a reverse proxy that buffers nothing: what passing bytes on costs in C.

Writes its configuration into `BENCH_FOLDER`, and becomes nginx. `BENCH_UPSTREAM` is the address
that requests are passed on to.
"""

import http.client
import json
import os
import socket
import sys
import time
from pathlib import Path

CONFIGURATION = """
daemon off;
worker_processes 1;
worker_rlimit_nofile @NOFILE@;
pid @DIR@/pid;
error_log stderr error;
events { worker_connections @CONNECTIONS@; }
http {
  access_log off;
  client_body_temp_path @DIR@/body;
  proxy_temp_path @DIR@/proxy;
  fastcgi_temp_path @DIR@/fastcgi;
  uwsgi_temp_path @DIR@/uwsgi;
  scgi_temp_path @DIR@/scgi;
  tcp_nodelay on;
  upstream provider { server @UPSTREAM@; keepalive 1024; }
  server {
    listen 127.0.0.1:@PORT@ backlog=4096;
    location / {
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
"""
NOFILE = 20_000
START_PATIENCE_S = 20.0


def main() -> None:
    """Become nginx; a child of it says when it accepts, and ends."""
    folder = Path(os.environ["BENCH_FOLDER"])
    folder.chmod(0o755)  # the worker is another user when nginx is started by root
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    values = {
        "DIR": str(folder),
        "NOFILE": str(NOFILE),
        "CONNECTIONS": str(NOFILE - 1000),
        "UPSTREAM": os.environ["BENCH_UPSTREAM"].removeprefix("http://"),
        "PORT": str(port),
    }
    text = CONFIGURATION
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (folder / "nginx.conf").write_text(text)
    nginx = os.getpid()
    if os.fork() == 0:
        # A grandchild, which nginx does not know of and need not wait for.
        if os.fork() == 0:
            announce(port, nginx)
        os._exit(0)
    os.wait()
    os.execv(sys.argv[1], [sys.argv[1], "-p", str(folder), "-c", "nginx.conf"])


def announce(port: int, pid: int) -> None:
    """Say that nginx is ready once its worker answers: it listens before it has one."""
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.02)
        else:
            os.write(1, json.dumps({"port": port, "pid": pid}).encode() + b"\n")
            return
        finally:
            connection.close()


if __name__ == "__main__":
    main()
