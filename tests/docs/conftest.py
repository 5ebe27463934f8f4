"""A server for what the documentation shows, with the stream in it that several pages read."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from docs.documents import BIN, gateway, recorded_upstream, serving
from penstock.client import publish


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of `penstock serve`, which keeps the answer `chat/42` and is a gateway."""
    folder: Path = tmp_path_factory.mktemp("server")
    with recorded_upstream(folder) as upstream:
        (folder / "penstock.toml").write_text(gateway(upstream), "utf-8")
        with serving([str(BIN / "penstock"), "serve", "--port", "0"], folder) as address:
            url = f"{address}/v1/stream/chat/42"
            asyncio.run(publish(url, b'["hello", "again"]', create=True, close=True))
            yield address
