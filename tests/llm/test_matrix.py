"""Any dialect in, any dialect out: every recording comes out as it was read, whoever reads it.

`llm/matrix.py` prints the same as a table.
"""

from __future__ import annotations

import pytest

from llm.matrix import INS, cases, plain_cells, table
from llm.plain_clients import CLIENTS
from penstock.llm.write.dialects import OUT_DIALECTS
from penstock.testing.recordings import find_directory

MISSING = "no recordings here: set PENSTOCK_RECORDINGS to a folder of <dialect>.jsonl.gz files"


def test_every_dialect_that_is_written_has_a_plain_client() -> None:
    assert set(CLIENTS) == set(OUT_DIALECTS)


@pytest.mark.parametrize("dialect", INS)
def test_every_recording_is_shown_as_it_was_read(dialect: str) -> None:
    if find_directory() is None:
        pytest.skip(MISSING)
    assert cases(dialect)
    found = list(plain_cells(dialect))
    print(f"\n{table(found)}")
    assert [cell.wrong[:2] for cell in found] == [()] * len(CLIENTS)
