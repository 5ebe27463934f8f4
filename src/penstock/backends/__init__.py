"""Where a log is kept.

`interface.py` says what a backend must do; each other file is one backend and knows no other. A
backend never sees HTTP, and never encodes: it stores records and says when they are committed.
"""
