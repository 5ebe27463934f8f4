"""How the laws are checked: no deadline, since a shared machine pauses whom it likes, and a failure
that prints what reproduces it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("laws", deadline=None, print_blob=True)
settings.load_profile("laws")
