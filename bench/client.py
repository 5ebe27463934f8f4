"""Running a load client: on its own core, to its end, and what it said."""

import functools
import json
import subprocess
from collections.abc import Callable, Sequence

from bench import build, machine
from bench.launch import Running, ServerFailed

Round = dict[str, float | str | bool]
"""What one round found, or `{"invalid": reason}`."""

PATIENCE_S = 150.0
"""What a client may take beyond its window: to connect, to prepare, to come to an end."""


def run_client(
    program: str,
    server: Running,
    arguments: Sequence[object],
    *,
    seconds: float = 0,
    patience_s: float = PATIENCE_S,
    meanwhile: Callable[[subprocess.Popen[str]], None] | None = None,
) -> Round:
    """Run a load client against a server. Raises ServerFailed when it fails, or does not end.

    `meanwhile` is called once the client runs, and may look at the server in the middle.
    """
    command = [
        *(str(build.load_client(program)), "--port", str(server.port)),
        *("--pids", ",".join(map(str, server.pids)), "--seconds", str(seconds)),
        *map(str, arguments),
    ]
    client = subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=functools.partial(machine.take_core, machine.cores()[1]),
    )
    try:
        if meanwhile is not None:
            meanwhile(client)
        output, errors = client.communicate(timeout=seconds + patience_s)
    except subprocess.TimeoutExpired as error:
        raise ServerFailed(f"{program} did not come to an end") from error
    finally:
        client.kill()  # does nothing when it has ended
        client.wait()
    if client.returncode != 0 or not output:
        raise ServerFailed(f"{program} failed: {errors.strip()[-300:]}")
    return json.loads(output)


def check_connections(result: Round, wanted: int) -> None:
    """Mark a round invalid in which not all readers were there all the time."""
    troubles = {key: result[key] for key in ("failed", "closed") if result[key]}
    if result["ready"] != wanted:
        troubles["ready"] = result["ready"]
    if troubles:
        result["invalid"] = f"connections: {troubles} {result['error']}".strip()
