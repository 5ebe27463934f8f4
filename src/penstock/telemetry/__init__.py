"""What we say about ourselves: names of metrics, hooks that are called, and exporters.

`names.py` is the list; documentation, the live page and alerts are compared with it. `hooks.py`
is what the server calls; an exporter implements it. Nothing here knows a server or a backend.
"""
