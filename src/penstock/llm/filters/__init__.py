"""The filter chain: what is done to an answer's token events before anybody sees them.

`chain.py` says what a filter is and puts filters in a row; read it first. One file is one filter:
`strip.py` takes control tokens out, `redact.py` hides what patterns describe, `stops.py` ends the
answer at given words, `white_space.py` tidies, `tool_calls.py` holds tool calls back until they are
whole. `table.py` makes a chain of what configuration says. Below the filters that look for
something in the text stand `pattern.py` (what can be looked for), `automaton.py` (how) and
`channels.py` (how events keep their order while text is held back). No dialect may be named here,
and no model but in `strip.py`'s list of control tokens.
"""
