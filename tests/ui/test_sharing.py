"""Sharing questions between people, sessions, and the way in, without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from reviewing import fill
from serving import MINUTES, wait

from fingerpost.consensus.session import Card
from fingerpost.core.errors import InputError
from fingerpost.core.types import Message, Question
from fingerpost.core.verdicts import active
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.store.server import hash_key
from fingerpost.ui.access import SECRET_FILE, secret_of
from fingerpost.ui.leases import LeasedCards
from fingerpost.ui.start_pages import described
from ui.conftest import Site


def cards(count: int) -> list[Card]:
    return [
        Card(Question(f"q{i}", (Message("user", f"text {i}"),), "user", f"q{i}", "train"), "why") for i in range(count)
    ]


def shown(card: Card | None) -> str | None:
    return None if card is None else card.question.id


def test_a_lease_ends_and_is_not_stolen() -> None:
    now = [0.0]
    leased = LeasedCards(lease_s=10.0, clock=lambda: now[0])
    leased.replace(cards(2), {})
    assert (shown(leased.next("ann")), shown(leased.next("bob")), leased.next("cy")) == ("q0", "q1", None)
    now[0] = 11.0
    assert shown(leased.next("cy")) == "q0" and shown(leased.next("ann")) == "q1"
    leased.answered("ann", "q0")  # late
    leased.answered("cy", "q0")
    leased.show("ann", cards(1)[0])
    now[0] = 25.0
    leased.answered("ann", "q1")
    assert shown(leased.next("ann")) == "q0"  # hers again, as she asked for it
    leased.show("bob", cards(2)[1])
    assert shown(leased.next("bob")) == "q1"


def test_what_happens_while_a_list_is_computed_counts() -> None:
    leased = LeasedCards()
    leased.replace(cards(3), {})
    leased.answered("ann", "q0")
    leased.begin()
    read = {"q0": {"ann"}}
    leased.withdrawn("ann", "q0")
    leased.answered("bob", "q1")
    leased.replace(cards(3), read)
    assert shown(leased.next("ann")) == "q0" and leased.left == 2
    leased.begin()
    leased.replace(cards(3), {})  # bob's answer was taken back elsewhere
    assert leased.left == 3


@pytest.mark.slow
def test_a_second_person_is_asked_also_after_a_restart(folder: Path) -> None:
    with Store(folder / "fingerpost.db") as store:
        fill(store)
    with Site(folder, double=1.0) as site:
        wait(lambda: site.ui.queue.is_ready)
        card = site.ui.queue.next("ann")
        assert card is not None
        site.ui.queue.answer("ann", card.question.id, "other")
    with Site(folder, double=1.0) as site:
        wait(lambda: site.ui.queue.is_ready)
        again = site.ui.queue.next("bob")
        assert again is not None and again.question.id == card.question.id
        assert again.suggestions == () and again.teacher_label is None and again.neighbours == ()
        assert shown(site.ui.queue.next("ann")) != card.question.id


@pytest.mark.slow
def test_skips_answers_elsewhere_and_undo(folder: Path) -> None:
    with Store(folder / "fingerpost.db") as store:
        fill(store)
    with Site(folder) as site:
        queue = site.ui.queue
        wait(lambda: queue.is_ready)
        first = queue.next("ann")
        assert first is not None
        other = Project(folder)
        with other.store() as store:  # in a terminal
            session = other.review(store, "bob")
            session.answer(first.question, "other")
        second = queue.next("ann")
        assert second is not None and second.question.id != first.question.id
        sampled = queue.next("ann", sample=True)
        assert sampled is not None
        queue.answer("ann", second.question.id, "billing")
        queue.answer("ann", sampled.question.id, "billing", sample=True)
        undone = queue.undo("ann")
        assert undone is not None and undone.sample and shown(queue.next("ann", sample=True)) == sampled.question.id
        undone = queue.undo("ann")
        assert undone is not None and not undone.sample and shown(queue.next("ann")) == second.question.id
        seen = set()
        while (card := queue.next("cy")) is not None or queue.is_computing or queue._wake.is_set():
            if card is not None:
                seen.add(card.question.id)
                queue.skip("cy", card.question.id)
        assert len(seen) > 100
        count = queue.correct_group("ann", [first.question.id, second.question.id], "delivery", "group")
        assert count == 1  # bob has decided the first one
    with Store(folder / "fingerpost.db") as store:
        given = {one.by: one.label for one in active(store.verdicts()[first.question.id]) if one.kind == "human"}
    assert given == {"bob": "other"}


@pytest.mark.slow
def test_a_renamed_label_is_offered_at_once(folder: Path) -> None:
    with Store(folder / "fingerpost.db") as store:
        fill(store)
    with Site(folder) as site, httpx2.Client(base_url=site.url, timeout=MINUTES) as client:
        wait(lambda: 'id="answer"' in client.get("/review").text)
        text = (folder / "task.toml").read_text()
        (folder / "task.toml").write_text("nonsense = = 1\n" + text)
        broken = client.get("/review")
        assert broken.status_code == 400 and "not valid TOML" in broken.text
        (folder / "task.toml").write_text(re.sub(r"^billing = ", "invoices = ", text, flags=re.M))
        assert client.get("/labels/invoices").status_code == 200 and client.get("/labels/billing").status_code == 400


def test_keys_sessions_and_what_is_kept(folder: Path) -> None:
    keys = {hash_key("sk-ann"): "ann"}
    with Store(folder / "fingerpost.db") as store:
        fill(store)
        key = next(iter(store.questions("train"))).id
    own = {"sec-fetch-site": "same-origin"}
    sent: dict[str, Any] = {"question": key, "label": "billing"}
    with Site(folder, keys=lambda: keys) as site, httpx2.Client(base_url=site.url, timeout=MINUTES) as client:
        assert client.get("/review").headers["location"].startswith("/ui/sign-in")
        for path, headers in (
            ("/review/answer", {"sec-fetch-site": "cross-site"}),
            ("/runs", own),
            ("/review/answer", {}),
        ):
            assert 'name="kept"' not in client.post(path, data=sent, headers=headers).text
        kept = client.post("/review/answer", data=sent, headers=own).text
        blob = re.findall(r'name="kept" value="([^"]+)"', kept)[0]
        forged = client.post("/sign-in", data={"key": "sk-ann", "kept": blob[:-4] + "aaaa", "next": "//evil.example"})
        assert forged.status_code == 303 and forged.headers["location"] == "/ui/"
        resumed = client.post("/sign-in", data={"key": "sk-ann", "kept": blob})
        assert "billing" in resumed.text and 'action="/ui/review/answer"' in resumed.text
        assert client.get("/").status_code == 200
        csrf = re.findall(r'name="csrf" value="([^"]+)"', client.get("/runs").text)[0]
        for name in ("ann", "guest"):
            invited = client.post("/invitations", data={"csrf": csrf, "name": name})
            assert invited.status_code == (400 if name == "ann" else 200)
        link = re.findall(r'value="http[^"]+/ui(/invite/[^"]+)"', invited.text)[0]
        assert client.get(link).status_code == 409  # her own session stays
        keys.clear()
        assert client.get("/").status_code == 303  # the key is revoked
        large = client.post("/review/answer", content=b"x" * 600_000, headers={"content-type": "text/plain"})
        assert large.status_code == 413


def test_an_upload_replaces_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "messages.csv").write_text("text\nmine\n")
    with Site(folder) as site, httpx2.Client(base_url=site.url, timeout=MINUTES) as client:
        csrf = re.findall(r'name="csrf" value="([^"]+)"', client.get("/").text)[0]
        empty = client.post("/start", data={"csrf": csrf}, files={"file": ("messages.csv", b"")})
        assert empty.status_code == 400
        done = client.post("/start", data={"csrf": csrf}, files={"file": ("../messages.csv", b"text\nhello\nthere\n")})
        assert done.headers["location"].endswith("file=messages-2.csv")
        assert client.get("/start?file=../../etc/passwd").status_code == 400
    assert (folder / "messages.csv").read_text() == "text\nmine\n"
    assert sorted(path.name for path in folder.iterdir()) == [".ui-secret", "messages-2.csv", "messages.csv"]


def test_labels_with_colons() -> None:
    assert described("account:close: closes it\naccount:open:\nother") == {
        "account:close": "closes it", "account:open": "", "other": "",
    }  # fmt: skip
    with pytest.raises(InputError, match="at least two"):
        described("one")


def test_a_secret_that_was_cut_off_is_replaced(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_bytes(b"")
    found = secret_of(tmp_path)
    assert len(found) >= 32 and secret_of(tmp_path) == found


@pytest.mark.slow
def test_the_queue_goes_on_when_questions_come(folder: Path) -> None:
    with Site(folder) as site, httpx2.Client(base_url=site.url, timeout=MINUTES) as client:
        wait(lambda: "no training questions" in client.get("/review").text)
        with Store(folder / "fingerpost.db") as store:
            fill(store)
        wait(lambda: 'id="answer"' in client.get("/review").text)
