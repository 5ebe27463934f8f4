"""The only room where logs, bytes on a wire and sockets meet: the hub, its views, its HTTP surface.

Read `hub.py` first (streams and their producers), then `view.py` (fan-out), then `fastpath.py` and
`portable.py`, the two ways bytes reach a reader.
"""
