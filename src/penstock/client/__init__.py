"""Clients that come back: they reconnect, resume and tell a finished stream from a cut one.

The rules are `core/resume.py`, the bytes `wire/sse.py`; here is what waits on sockets.
"""

from penstock.client._aio import Event, Events, connect
from penstock.client._publish import publish

__all__ = ["Event", "Events", "connect", "publish"]
