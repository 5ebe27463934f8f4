"""Provider bytes to token events: one vocabulary, one reader a dialect.

`events.py` is the vocabulary that everything above speaks; read it first. `assemble.py` puts pieces
together, in both directions of size: a provider's pieces into a well-formed run of token events,
and token events into the whole answer. Every other file is one dialect, and no dialect knows
another. Nothing in this room does IO, knows the time, draws a random number or logs.
"""
