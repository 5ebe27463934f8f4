"""Doubles that ship with the package: what a user's own tests need, and ours.

`recordings.py` finds real provider streams and holds a few of our own; `upstream.py` is a server
that answers as a provider does, from those. Only `cli/demo` and tests use this room.
"""
