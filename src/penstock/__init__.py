"""Penstock: streams of model tokens and events, resumable, to every browser, app and agent."""

from penstock.client import connect
from penstock.core.cursor import Offset
from penstock.core.errors import CallerError, PeerError, PenstockError, WorldError
from penstock.core.log import Retention
from penstock.core.record import EndReason, NewRecord
from penstock.server.hub import Hub
from penstock.server.payload import json_record
from penstock.server.stream import Stream

__all__ = [
    "CallerError",
    "EndReason",
    "Hub",
    "NewRecord",
    "Offset",
    "PeerError",
    "PenstockError",
    "Retention",
    "Stream",
    "WorldError",
    "connect",
    "json_record",
]
