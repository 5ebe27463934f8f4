"""Readers of requests: one file a dialect that clients speak, a body in and a `Request` out.

Every reader is a function of the parsed body, and raises `RequestMalformed` for one that is not its
dialect. `conversation.py` is what several share. No dialect knows another.
"""
