"""Records of runs: what they say of how a command ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.cli import exit_codes
from fingerpost.core.errors import BudgetError, InputError
from fingerpost.core.types import Progress
from fingerpost.store import runs


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (None, exit_codes.DONE, "done"),
        (SystemExit(exit_codes.PARTLY), exit_codes.PARTLY, "partly done"),
        (InputError("x"), exit_codes.FAILED, "failed"),
        (ValueError("x"), exit_codes.FAILED, "failed"),
        (BudgetError("x"), exit_codes.BUDGET, "stopped at the budget"),
        (KeyboardInterrupt(), exit_codes.INTERRUPTED, "stopped"),
    ],
)
def test_how_a_run_ended(tmp_path: Path, error: BaseException | None, code: int, state: str) -> None:
    def work() -> None:
        with runs.recording(tmp_path, "label"):
            runs.note(Progress("label", done=3, total=9, cost_usd=0.5, message="news"))
            (found,) = runs.read_runs(tmp_path)
            assert found.state == "running" and (found.done, found.total, found.messages) == (3, 9, ["news"])
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    (found,) = runs.read_runs(tmp_path)
    assert (found.code, found.state, found.cost_usd) == (code, state, 0.5)
