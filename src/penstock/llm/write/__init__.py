"""Token events to bytes of a client's dialect: one writer a dialect, any provider's answer in it.

`writer.py` is what all writers share: what arrives as an argument, the order of an answer's events,
how an answer that went wrong is told, JSON as it goes on the wire. `parts.py` stands on it for the
dialects that put an answer into parts which are opened, filled and closed. `dialects.py` is the
table that names every dialect. One file is one dialect, and no dialect knows another; what some of
them share has a file of its own (`sources.py`, `openai_errors.py`). `about.py` is the first record
of an answer's log, from which a writer of any dialect is made.

The files are named as those of `penstock.llm` that read the same dialect. Nothing here does IO,
knows the time or draws an id: the same events and the same `Envelope` give the same bytes.
"""
