"""The review page in a real browser."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import ROOT as REPOSITORY
from playwright.sync_api import Browser, Page
from reviewing import GOLD
from serving import MINUTES, wait

from fingerpost.core.text import question_id
from fingerpost.core.types import Message, Question
from fingerpost.core.verdicts import active
from fingerpost.store.project import Store
from ui.conftest import Site

Visit = Callable[..., Page]
pytestmark = pytest.mark.browser


def question(page: Page) -> str:
    page.wait_for_selector(".question")
    return page.inner_text(".question")


def right(text: str) -> str:
    return GOLD[question_id((Message("user", text),))]


def after(page: Page, before: str) -> str:
    """The next question."""
    page.wait_for_function("text => document.querySelector('.question')?.innerText !== text", arg=before)
    return question(page)


def answer(page: Page, label: str) -> str:
    """Give an answer by keys: a number, or the search where no number has the label."""
    before = question(page)
    names = page.locator("#answer .label .name").all_inner_texts()
    if label in names:
        page.keyboard.press(str(names.index(label) + 1))
    else:
        page.keyboard.press("/")
        page.keyboard.type(label)
        page.wait_for_function("label => document.querySelector('#found .name')?.innerText === label", arg=label)
        page.keyboard.press("Enter")
    after(page, before)
    return before


def verdicts(folder: Path) -> dict[str, list[tuple[str, str | None]]]:
    """Who has said what, by the text of the question."""
    with Store(folder / "fingerpost.db") as store:
        texts = {one.id: one.messages[-1].content for one in store.questions()}
        return {
            texts[key]: [(one.by, one.label) for one in active(found) if one.kind == "human"]
            for key, found in store.verdicts().items()
            if any(one.kind == "human" for one in active(found))
        }


def test_fifty_reviews_by_keyboard_alone(site: Site, project: Path, visit: Visit) -> None:
    page = visit(f"{site.url}/review")
    for _ in range(50):
        text = question(page)
        answer(page, right(text))
    given = verdicts(project)
    assert len(given) == 50 and all(found == [("ann", right(text))] for text, found in given.items())
    assert page.inner_text(".gauge").startswith("50 of ")
    assert page.evaluate("() => document.activeElement.matches('[data-focus]')")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("1")  # keys are off while the sheet is open
    page.keyboard.press("Escape")
    assert len(verdicts(project)) == 50
    text = question(page)
    page.keyboard.press("n")
    page.keyboard.type("0 u s is a note")  # and while typing
    page.keyboard.press("Enter")  # leaves the field
    page.keyboard.press("Enter")  # takes the first label
    after(page, text)
    with Store(project / "fingerpost.db") as store:
        notes = [one.note for found in store.verdicts().values() for one in found if one.note]
    assert notes == ["0 u s is a note"] and len(verdicts(project)) == 51


def test_undo_goes_back_over_answers_and_skips(site: Site, project: Path, visit: Visit) -> None:
    page = visit(f"{site.url}/review")
    first = answer(page, "other")
    second = question(page)
    page.keyboard.press("s")
    third = after(page, second)
    page.keyboard.press("0")
    fourth = after(page, third)
    assert verdicts(project)[third] == [("ann", None)]
    for expected in (third, second, first):
        before = question(page)
        page.keyboard.press("u")
        assert after(page, before) == expected
    assert verdicts(project) == {}
    page.keyboard.press("u")
    page.wait_for_function("() => document.querySelector('#status')?.innerText.includes('nothing to undo')")
    assert fourth not in (first, second, third)


def test_undo_and_history_survive_the_server(project: Path, visit: Visit) -> None:
    with Site(project) as site:
        page = visit(f"{site.url}/review")
        first, second = answer(page, "other"), answer(page, "billing")
    with Site(project) as site:
        page = visit(f"{site.url}/review")
        now = question(page)
        assert now not in (first, second)
        page.keyboard.press("u")
        assert after(page, now) == second and list(verdicts(project)) == [first]
        page.keyboard.press("h")
        page.wait_for_selector("text=My answers")
        page.click(f"tr:has-text('{first}') button")
        page.wait_for_selector(".question")
        assert question(page) == first
        answer(page, "delivery")
    assert verdicts(project) == {first: [("ann", "delivery")]}


@pytest.mark.parametrize("people", [2, 5])
def test_several_people_never_get_the_same_question(site: Site, project: Path, visit: Visit, people: int) -> None:
    pages = [visit(f"{site.url}/review", f"reviewer {number}") for number in range(people)]
    for _ in range(12 // people + 1):
        shown = [question(page) for page in pages]
        assert len(set(shown)) == people
        for page in pages:
            answer(page, "other")
    given = verdicts(project)
    assert len(given) == people * (12 // people + 1) and all(len(found) == 1 for found in given.values())
    assert {by for found in given.values() for by, _ in found} == {f"reviewer {number}" for number in range(people)}


def test_a_lease_that_ends_and_a_late_verdict(project: Path, visit: Visit) -> None:
    with Site(project, lease_s=0.5) as site:
        slow, quick = visit(f"{site.url}/review", "slow"), visit(f"{site.url}/review", "quick")
        text = question(slow)

        def comes_back() -> bool:
            quick.reload()
            return question(quick) == text or answer(quick, "other") == ""

        wait(comes_back)
        answer(quick, "billing")
        answer(slow, "delivery")  # late, and still taken
    assert sorted(verdicts(project)[text]) == [("quick", "billing"), ("slow", "delivery")]


def test_a_reload_in_the_middle_loses_nothing(site: Site, project: Path, visit: Visit) -> None:
    page = visit(f"{site.url}/review")
    first = answer(page, "other")
    now = question(page)
    page.reload()
    assert question(page) == now
    page.go_back()
    page.go_forward()
    assert question(page) == now and list(verdicts(project)) == [first]


def test_a_second_opinion_sees_no_other(project: Path, visit: Visit) -> None:
    with Site(project, double=1.0) as site:
        one, two = visit(f"{site.url}/review", "one"), visit(f"{site.url}/review", "two")
        text = answer(one, "delivery")
        for _ in range(30):
            if question(two) == text:
                break
            answer(two, "other")
        assert question(two) == text
        site.ui.queue.refresh()
        two.reload()
        assert question(two) == text and "one" not in two.inner_text(".card").split()
        answer(two, "billing")
    assert sorted(verdicts(project)[text]) == [("one", "delivery"), ("two", "billing")]


def test_a_group_is_corrected_and_that_is_undone(site: Site, project: Path, visit: Visit) -> None:
    page = visit(f"{site.url}/review")
    for _ in range(26):
        answer(page, right(question(page)))
    wait(lambda: site.ui.queue.groups())
    before = verdicts(project)
    page.keyboard.press("g")
    page.wait_for_selector("details[open] input[type=checkbox]")
    boxes = page.locator("details[open]").first.locator("input[type=checkbox]")
    texts = page.locator("details[open]").first.locator("li").all_inner_texts()
    boxes.first.uncheck()
    page.locator("details[open]").first.locator("button.main").click()
    page.wait_for_function("() => document.querySelector('#status')?.innerText.includes('questions are now')")
    given = verdicts(project)
    assert all(given[text] == found for text, found in before.items())
    assert texts[0].strip() not in given and {text.strip() for text in texts[1:]} <= set(given)
    page.goto(f"{site.url}/review")
    page.wait_for_selector(".question")
    page.keyboard.press("u")
    page.wait_for_function("() => document.querySelector('#status')?.innerText.includes('undone')")
    assert verdicts(project) == before


def test_a_session_that_ends_while_typing_keeps_the_verdict(project: Path, visit: Visit) -> None:
    keys = {"0" * 64: "nobody"}
    from fingerpost.store.server import hash_key

    keys[hash_key("sk-ann")] = "ann"
    with Site(project, keys=lambda: keys) as site:
        page = visit(f"{site.url}/review")
        page.fill("input[name=key]", "wrong")
        page.click("button.main")
        page.wait_for_selector("text=unknown or revoked")
        page.fill("input[name=key]", "sk-ann")
        page.click("button.main")
        text = question(page)
        page.fill("input[name=note]", "typed for a long time")
        page.context.clear_cookies()
        page.locator("#answer .label").first.click()
        page.wait_for_selector("text=Your session has ended")
        page.fill("input[name=key]", "sk-ann")
        page.click("button.main")
        page.click("text=Save it and continue")
        page.wait_for_selector(".question")
    with Store(project / "fingerpost.db") as store:
        (found,) = [one for all_ in store.verdicts().values() for one in all_ if one.kind == "human"]
        assert found.by == "ann" and found.note == "typed for a long time"
    assert list(verdicts(project)) == [text]


def test_an_invitation_opens_the_review_page_and_nothing_else(site: Site, project: Path, visit: Visit) -> None:
    page = visit(f"{site.url}/review")
    page.wait_for_selector("#answer")
    page.click("text=Invite somebody")
    page.fill(".invite input[name=name]", "Zoë from HR")
    page.click("text=Make a link")
    link = page.input_value("input[readonly]")
    guest = visit(link)
    answer(guest, "billing")
    assert guest.locator("nav").count() == 0 and guest.inner_text(".who") == "Zoë from HR"
    assert next(iter(verdicts(project).values())) == [("Zoë from HR", "billing")]
    for place in ("/", "/runs", "/compare", "/report"):
        assert guest.request.get(f"{site.url}{place}").status in (403, 404)
    assert guest.request.get(link[:-3] + "abc").status == 403


HOSTILE = "<script>window.hit = 1</script><img src=x onerror='window.hit=1'> \" ' {{ 7 * 7 }}"


def test_hostile_texts_are_shown_as_texts(folder: Path, visit: Visit) -> None:
    task = folder / "task.toml"
    name = "<script>window.hit=2</script>"
    task.write_text(task.read_text().replace("[labels]\n", f'[labels]\n"{name}" = "{name}"\n'))
    messages = (Message("user", "<b>hello</b>"), Message("assistant", HOSTILE), Message("user", HOSTILE))
    with Store(folder / "fingerpost.db") as store:
        more = [(Message("user", f"{HOSTILE} {number}"),) for number in range(8)]
        rows = [messages, *more]
        store.add_questions([Question(question_id(one), one, "user", str(i), "train") for i, one in enumerate(rows)])
    with Site(folder) as site:
        page = visit(f"{site.url}/review")
        assert HOSTILE.split()[0] in question(page)
        page.fill("input[name=note]", HOSTILE)
        page.locator("#answer .label", has_text=name).click()
        page.wait_for_function("() => document.querySelector('#status')?.innerText.includes('Saved')")
        page.goto(f"{site.url}/review/history")
        assert HOSTILE in page.inner_text("main") and name in page.inner_text("main")
        page.goto(f"{site.url}/labels/%3Cscript%3Ewindow.hit=2%3C/script%3E")
        assert page.inner_text("h1") == name
        assert page.evaluate("() => window.hit") is None
        page.goto(f"{site.url}/review?q={HOSTILE}")
        assert page.evaluate("() => window.hit") is None


def test_five_hundred_labels_and_long_texts_and_other_scripts(folder: Path, visit: Visit) -> None:
    text = (folder / "task.toml").read_text()
    head, _, rest = text.partition("[labels]\n")
    tail = rest[rest.index("\n[") :]
    labels = "".join(f'label_{number} = "meaning number {number}"\n' for number in range(500))
    (folder / "task.toml").write_text(f"{head}[labels]\n{labels}{tail}".replace('fallback = "other"\n', ""))
    turns = tuple(Message("user" if i % 2 == 0 else "assistant", f"turn {i} " + "word " * 40) for i in range(50))
    rows = [
        (Message("user", "x" * 300 + " " + "long " * 3_940),),
        (*turns, Message("user", "the fiftieth turn")),
        (Message("user", "أين طلبي؟ 📦 مرحبا"),),
        *((Message("user", f"one more {number}"),) for number in range(2)),
    ]
    with Store(folder / "fingerpost.db") as store:
        store.add_questions([Question(question_id(one), one, "user", str(i), "train") for i, one in enumerate(rows)])
    with Site(folder) as site:
        page = visit(f"{site.url}/review", None, viewport={"width": 360, "height": 740})
        seen = set()
        for number in range(5):
            shown = question(page)
            assert len(page.content()) < 100_000
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
            if "fiftieth" in shown:
                seen.add("turns")
                assert page.locator("text=earlier turns").count() == 1
            elif "طلبي" in shown:
                seen.add("right to left")
                assert page.evaluate("() => getComputedStyle(document.querySelector('.question')).direction") == "rtl"
                assert "📦" in shown
            elif "one more" in shown:
                seen.add("more")
            else:
                seen.add("long")
                page.keyboard.press("+")
                page.wait_for_function("() => document.querySelector('.question')?.innerText.length > 19000")
            if number < 4:  # after the last one there is no question
                answer(page, "label_321")
        assert seen == {"turns", "right to left", "long", "more"}
    assert all(found == [("ann", "label_321")] for found in verdicts(folder).values())


def test_without_scripts(site: Site, project: Path, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/review")
    for _ in range(MINUTES):
        if page.locator("#answer").count():
            break
        page.wait_for_timeout(500)
        page.goto(f"{site.url}/review")
    first = page.inner_text(".question")
    page.click("#answer button[value=other]")
    assert page.inner_text(".question") != first and "Saved: other" in page.inner_text("#status")
    page.click(".bar button:has-text('Skip')")
    page.click(".bar button:has-text('Undo')")
    page.click(".bar button:has-text('Undo')")
    assert page.inner_text(".question") == first
    page.fill("input[name=q]", "deli")
    page.press("input[name=q]", "Enter")
    page.click("#found button[value=delivery]")
    assert verdicts(project) == {first: [("ann", "delivery")]}
    context.close()


def test_the_test_sample_shows_no_hints(site: Site, project: Path, visit: Visit) -> None:
    page = visit(f"{site.url}/review?sample=test")
    text = question(page)
    assert page.locator(".share").count() == 0 and page.locator(".models").count() == 0
    page.keyboard.press("m")
    page.wait_for_selector("text=no student yet")
    assert "billing" in page.inner_text("main") or "other" in page.inner_text("main")
    page.keyboard.press("Enter")
    assert question(page) == text
    answer(page, "billing")
    assert verdicts(project) == {text: [("ann", "billing")]}


def test_forms_of_other_sites_are_refused(site: Site, project: Path) -> None:
    with httpx2.Client(base_url=site.url, timeout=MINUTES) as client:
        key = next(iter(Store(project / "fingerpost.db").questions("train"))).id
        sent: dict[str, Any] = {"question": key, "label": "billing", "csrf": "0" * 32}
        client.post("/review/answer", data=sent)
        assert verdicts(project) == {}
        refused = client.get("/review", headers={"host": "evil.example"})
        assert refused.status_code == 403
        page = client.get("/")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert "httponly" in page.headers["set-cookie"].lower() and "samesite=lax" in page.headers["set-cookie"].lower()


def test_the_scripts_are_small_and_what_they_claim_to_be() -> None:
    static = REPOSITORY / "src" / "fingerpost" / "ui" / "static"
    assert sum(len(gzip.compress(file.read_bytes(), 9)) for file in static.glob("*.js")) < 25_000
    listed = json.loads((static / "vendored.json").read_text())
    import hashlib

    for name, about in listed.items():
        assert hashlib.sha256((static / name).read_bytes()).hexdigest() == about["sha256"]
    assert set(listed) == {file.name for file in static.glob("*.js")} - {"keys.js"}
