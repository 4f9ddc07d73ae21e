"""The process that learns a decision: `python -m fingerpost.server.loop.worker FOLDER DECISION OPTIONS`.

It ends when its standard input closes, so also when the server is killed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fingerpost.core.errors import FingerpostError
from fingerpost.core.utils import end_with_parent
from fingerpost.store.server import DATABASE, ServerStore


def main(folder: str, decision_id: str, options: str) -> int:
    """Learn one decision. Prints why it cannot be learnt yet."""
    from fingerpost.server.loop.decisions import DECISIONS
    from fingerpost.server.loop.projects import learn

    end_with_parent()
    given = json.loads(options)
    os.nice(given["nice"])
    os.environ["OMP_NUM_THREADS"] = str(given["threads"])
    store = ServerStore(Path(folder) / DATABASE)
    try:
        row = next(row for row in store.decisions() if row.id == int(decision_id))
        learn(store, row, Path(folder) / DECISIONS, given["limit"], encoder=given["encoder"], epochs=0)
    except FingerpostError as error:
        print(error)
        return 1
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
