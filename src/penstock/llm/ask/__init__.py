"""Requests: what a client asks of a model, read from any dialect and written in any provider's.

`request.py` is the vocabulary; read it first. `read/` has one file for each dialect that clients
speak, `write/` one for each that providers do, and `dialects.py` is the table that names them all
and the one way in: bytes to a `Request`, a `Request` to method, path, headers and body. `fields.py`
is what all readers share, `written.py` what all writers do, and `json_values.py` what both need.
What a request is told of one family of models wherever it runs has a file too (`write/claude.py`).

Where client and provider speak the same dialect, the body goes on as it came, but for the model,
the stream flag and the bound on the output; OpenAI's chat is always asked for the usage of a
stream. Between two dialects nothing is dropped in silence: what the other cannot say is mapped by
a rule that its writer's file states, left out by name (`Written.left_out`) where it changes nothing
the model is told, or refused by name. What a request refers to (a picture's address, a file's) is
handed on and never fetched; no secret is read or written here.
"""
