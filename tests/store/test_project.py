from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.core.errors import InputError
from fingerpost.core.types import Message, Question, Usage, Verdict
from fingerpost.store.ledger import Call, Settlement
from fingerpost.store.project import Store


def question(name: str, split: str = "train") -> Question:
    return Question(name, (Message("user", f"text of {name}"),), "user", name, split)  # type: ignore[arg-type]


def test_questions_and_verdicts_come_back_as_they_went_in(tmp_path: Path) -> None:
    verdict = Verdict("a", "teacher", "m", "x", "import", "p", 2, '{"action": "x"}', -0.5, Usage(10, 5, 2, 0.1, 0.2))
    with Store(tmp_path / "db") as store:
        assert store.add_questions([question("a"), question("b", "test")]) == 2
        assert store.add_questions([question("a", "test")]) == 0
        assert store.add_verdicts([verdict, verdict]) == 1
        assert store.add_verdicts([verdict]) == 0
    with Store(tmp_path / "db") as store:
        assert store.questions("train") == [question("a")]
        (found,) = store.verdicts()["a"]
        assert (found.label, found.logprob, found.usage, found.order) == ("x", -0.5, verdict.usage, 2)
        assert store.counts() == {("user", "train"): 1, ("user", "test"): 1}


def test_the_database_itself_refuses_edits(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        store.add_questions([question("a")])
        store.add_verdicts([Verdict("a", "human", "me", "x")])
    with sqlite3.connect(tmp_path / "db") as raw:
        for command in (
            "UPDATE verdicts SET label = 'y'",
            "DELETE FROM verdicts",
            "UPDATE questions SET split = 'test'",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                raw.execute(command)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("this is not a database, whatever its name says")
    with pytest.raises(InputError, match="file is not a database"):
        Store(tmp_path / "db")


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "db").close()
    with sqlite3.connect(tmp_path / "db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InputError, match="pip install -U fingerpost"):
        Store(tmp_path / "db")


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    from sqlalchemy import create_engine, inspect

    from fingerpost.store.tables import metadata

    Store(tmp_path / "db").close()
    found = inspect(create_engine(f"sqlite:///{tmp_path / 'db'}"))
    for table in metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())


def _write(path: Path, worker: int, count: int) -> None:
    with Store(path) as store:
        for i in range(count):
            name = f"{worker}-{i}"
            store.add_questions([question(name)])
            (call,) = store.ledger.record([], [Call("label", "m", 0.01)], 100.0)
            assert isinstance(call, int)
            store.ledger.record(
                [Settlement(call, "paid", Usage(1, 0, 1, 0.001), Verdict(name, "teacher", "m", "x"))],
                [],
                None,
            )


def test_several_processes_open_and_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path / "db", worker, 40)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    with Store(tmp_path / "db") as store:
        assert len(store.questions()) == len(store.verdicts()) == 160
        account = store.ledger.account()
        assert account.calls == 160 and account.committed_usd == pytest.approx(0.16)


def test_the_budget_holds_with_calls_in_flight(tmp_path: Path) -> None:
    with Store(tmp_path / "db") as store:
        ids = store.ledger.record([], [Call("label", "m", 0.3)] * 5, 1.0)
        assert ids == [1, 2, 3, "budget", "budget"]
        assert store.ledger.record([Settlement(1, "paid", Usage(cost_usd=0.1))], [], 1.0) == []
        assert store.ledger.record([], [Call("label", "m", 0.3)], 1.0) == [4]
        assert store.ledger.record([], [Call("label", "m", 0.1)], 1.0) == ["budget"]
        assert store.ledger.record([Settlement(2, "lost")], [], 1.0) == []
        account = store.ledger.account()
        assert account.committed_usd == pytest.approx(1.0)
        assert account.uncertain == 3 and account.uncertain_usd == pytest.approx(0.9)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.4), st.floats(0, 1), st.sampled_from(["paid", "lost", "unsent"])),
        max_size=25,
    )
)
def test_the_committed_sum_never_exceeds_the_budget(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, float, str]]
) -> None:
    with Store(tmp_path_factory.mktemp("ledger") / "db") as store:
        for at_most, share, outcome in steps:
            (call,) = store.ledger.record([], [Call("label", "m", at_most)], 1.0)
            assert store.ledger.account().committed_usd <= 1.0 + 1e-9
            if isinstance(call, int):
                settled = Settlement(call, outcome, Usage(cost_usd=at_most * share))  # type: ignore[arg-type]
                store.ledger.record([settled, settled], [], 1.0)  # settling twice changes nothing
                assert store.ledger.account().committed_usd <= 1.0 + 1e-9


def test_another_store_of_this_process_ends_no_lock(tmp_path: Path) -> None:
    """SQLite's locks end when their process closes any handle of the file; another process would then delete the log in use."""
    path = tmp_path / "fingerpost.db"
    code = (
        "import sys; from pathlib import Path; from fingerpost.store.project import Store\n"
        "from fingerpost.core.types import Question, Message\n"
        "with Store(Path(sys.argv[1])) as store:\n"
        "    store.add_questions([Question(sys.argv[2], (Message('user', sys.argv[2]),), 'user', sys.argv[2], 'train')])\n"
    )
    with Store(path) as first:
        assert first.questions() == []
        for number in range(3):
            with Store(path) as second:
                second.questions()
            subprocess.run([sys.executable, "-c", code, str(path), f"question{number}"], check=True)
            assert path.with_name("fingerpost.db-wal").exists()  # the child was not the last one
            assert len(first.questions()) == number + 1
