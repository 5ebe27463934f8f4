"""`sqlite:///path`: logs in one file, which outlive their process. The embedded durable backend.

    backend      what the event loop has: the interface; `window` the bound of the queue,
                 `checks` what is refused before it
    operations   what goes into the queue, and what comes back
    writer       the one thread that writes: takes what waits, commits it, tells the loop
    judge        what each operation does; `retention` what is kept of a stream, `leaving` how
                 streams go; `group` what the operations of one commit share
    store        what is known of the streams, and one commit; `state` of one stream, `rows` how it
                 is written, `lineage` where a fork's records lie
    reader       two threads that read beside the writer; `watch` a listener's place
    courtesy     giving the interpreter to those threads, where a busy loop would not
    checkpoint   moving commits from the write-ahead log into the file
    opening      who may open a file, and what a killed process left; `schema` the file itself
    backup       a consistent copy while all this goes on
    excerpt      one stream read beside whatever uses the store

Only `backend`, `backup` and `excerpt` are for others.
"""

from penstock.backends.sqlite.backend import Durability, SqliteBackend

__all__ = ["Durability", "SqliteBackend"]
