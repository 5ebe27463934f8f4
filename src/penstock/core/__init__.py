"""The idea: an append-only log, and cursors into it.

Pure values and state machines live here. Nothing in this room does IO, knows the time, draws a
random number, logs or imports a third party; time and randomness arrive as arguments. Read
`log.py` first, then `subscription.py`.
"""
