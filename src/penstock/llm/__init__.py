"""Provider bytes to token events: one vocabulary, one reader a dialect.

`events.py` is the vocabulary that everything above speaks; read it first. `assemble.py` puts pieces
together, in both directions of size: a provider's pieces into a well-formed run of token events,
and token events into the whole answer. `reader.py` is what all readers share, and `dialects.py` the
table that names every dialect and makes its reader. One file is one dialect, and no dialect knows
another; what two of them share has a file of its own (`openai_choices.py`, `eventstream.py`).
`write/` is the way out: token events to the bytes of any client's dialect. `ask/` is the other
direction: what a client asks, from its dialect into its provider's. Nothing in this room does IO,
knows the time, draws a random number or logs.
"""
