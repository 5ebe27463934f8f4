"""What the gateway answers, one file a dialect.

`exchange.py` is one request and the way back; read it first. `asking.py` reads what is asked and
starts the answer, `answering.py` sends it, as a stream or whole. The rest are the addresses.
"""
