"""Writers of requests: one file a dialect that providers speak, a `Request` in and a body out.

Every writer is a function of the request and its `Target`; its file's first lines say how it maps
what its dialect says otherwise. `turns.py` is what several share. No dialect knows another.
"""
