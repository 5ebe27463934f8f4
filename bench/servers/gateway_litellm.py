"""LiteLLM's proxy as its own command starts it: one worker, no database, nothing logged.

Runs in LiteLLM's own environment, where nothing of ours but this folder can be imported.
`BENCH_UPSTREAM` is where its only model is; the model's name is in `BENCH_MODEL`. It reads its
prices from its own copy, so that it needs no network.
"""

import json
import os
import socket
import threading
import time
from pathlib import Path

os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "DO_NOT_TRACK": "1",
    # Nobody is asked who they are, as with every other relay here.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
START_PATIENCE_S = 60.0


def configuration() -> dict[str, object]:
    """One model, whose provider speaks as OpenAI does."""
    model = os.environ["BENCH_MODEL"]
    upstream = {
        "model": f"openai/{model}",
        "api_base": os.environ["BENCH_UPSTREAM"] + "/v1",
        "api_key": "sk-upstream",
    }
    return {
        "model_list": [{"model_name": model, "litellm_params": upstream}],
        "litellm_settings": {"telemetry": False, "num_retries": 0, "request_timeout": 600},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def announce_when_it_accepts(port: int, ready: int) -> None:
    """Say so on the descriptor `ready`: LiteLLM itself writes much to standard output."""
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            os.write(ready, json.dumps({"port": port, "pid": os.getpid()}).encode() + b"\n")
            return


def main() -> None:
    """Serve until a signal."""
    ready = os.dup(1)
    os.dup2(2, 1)
    port = free_port()
    config = Path(os.environ["BENCH_FOLDER"]) / "config.yaml"
    config.write_text(json.dumps(configuration()))  # JSON is YAML
    threading.Thread(target=announce_when_it_accepts, args=(port, ready), daemon=True).start()
    from litellm.proxy.proxy_cli import run_server

    address = ("--host", "127.0.0.1", "--port", str(port))
    run_server([*address, "--config", str(config), "--num_workers", "1", "--telemetry", "False"])


if __name__ == "__main__":
    main()
