"""Leases: who may ask what, while the process that holds a lease lives, and after it has ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fingerpost.core.errors import InputError
from fingerpost.core.types import Usage
from fingerpost.store.ledger import Call, Settlement
from fingerpost.store.project import Store

CALL = Call("label", "m", 0.25, "k")
OTHER = """
import sys
from pathlib import Path
from fingerpost.store.ledger import Call
from fingerpost.store.project import Store
store = Store(Path(sys.argv[1]))
print(store.ledger.record([], [Call("label", "m", 0.25, "k")], None), flush=True)
sys.stdin.read()
"""


def number_of(store: Store, call: Call) -> int:
    (number,) = store.ledger.record([], [call], None)
    assert isinstance(number, int)
    return number


def test_a_lease_ends_with_the_call_and_an_answer_counts_for_earlier_plans(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as one, Store(tmp_path / "db") as other:
        number = number_of(one, CALL)
        assert other.ledger.record([], [CALL, Call("label", "m", 0.25, "k2")], None) == ["leased", number + 1]
        one.ledger.record([Settlement(number, "lost")], [], None)
        number = number_of(other, CALL)
        other.ledger.record([Settlement(number, "paid", Usage(cost_usd=0.1))], [], None)
        assert one.ledger.record([], [CALL], None) == ["answered"]
        assert one.ledger.times_answered("k") == 1
        on_purpose = Call("label", "m", 0.25, "k", planned_at=one.ledger.settled)
        assert one.ledger.record([], [on_purpose, on_purpose], None) == [number + 1, "leased"]


def test_a_lease_ends_with_its_process(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        command = [sys.executable, "-c", OTHER, str(tmp_path / "db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "[1]\n"
            assert store.ledger.record([], [CALL], None) == ["leased"]
            assert store.ledger.release() == (0, 0.0)
            other.kill()
        assert number_of(store, CALL) == 2
        assert store.ledger.release() == (1, 0.25)
        assert store.ledger.account().committed_usd == pytest.approx(0.25)
    assert list((tmp_path / "db.holders").iterdir()) == []


def test_a_lease_ends_when_its_store_is_closed(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        with Store(tmp_path / "db") as other:
            number_of(other, CALL)
        assert number_of(store, CALL) == 2


def test_what_is_in_a_batch_at_the_provider_is_not_asked_beside_it(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        with Store(tmp_path / "db") as other:
            batch = other.add_batch("label", "m", None)
            other.ledger.record([], [CALL], None, batch_id=batch)
            assert store.ledger.record([], [CALL], None) == ["leased"]  # it is being handed in
        other_batch = store.update_batch(batch, state="out")
        assert store.ledger.record([], [CALL], None) == ["answered"]
        store.update_batch(other_batch.id, state="new")  # its process has ended before it was handed in
        assert number_of(store, CALL) == 2


def test_an_answer_of_an_idempotent_endpoint_settles_the_interrupted_calls_before_it(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        with Store(tmp_path / "db") as killed:
            number_of(killed, CALL)
        lost, other = number_of(store, CALL), number_of(store, Call("label", "m", 0.25, "other"))
        store.ledger.record([Settlement(lost, "lost"), Settlement(other, "lost")], [], None)
        assert store.ledger.account().committed_usd == pytest.approx(0.75)
        paid = Settlement(number_of(store, CALL), "paid", Usage(cost_usd=0.1), idempotent=True)
        store.ledger.record([paid], [], None)
        account = store.ledger.account()
    assert (account.committed_usd, account.uncertain) == (pytest.approx(0.35), 1)


@pytest.mark.parametrize("step", ["generate", "define"])
def test_some_steps_run_once_at_a_time(tmp_path: Path, step: str) -> None:
    with Store(tmp_path / "db") as store, Store(tmp_path / "db") as other:
        with store.exclusive(step), pytest.raises(InputError, match=f"fingerpost {step}"), other.exclusive(step):
            pass
        with other.exclusive(step):
            pass
