"""Compare, blind votes, report, runs, and the way in, in a real browser."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import TEXTS, task_text
from playwright.sync_api import Browser, Page, expect
from reviewing import ALL, GOLD, fill
from serving import MINUTES, Serving, wait
from teacher import Teacher

from fingerpost.core.types import Verdict
from fingerpost.project import Project
from fingerpost.store.project import Store
from fingerpost.store.runs import read_runs
from ui.conftest import Site

Visit = Callable[..., Page]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Teacher]]:
    """A project with a student, reviews and a report, whose teacher is on a socket."""
    teacher = Teacher().start()
    folder = tmp_path_factory.mktemp("trained")
    (folder / "task.toml").write_text(task_text(teacher.base_url))
    with Store(folder / "fingerpost.db") as store:
        fill(store)
        some = [one for one in store.questions() if one.split in ("train", "test")][::2]
        store.add_verdicts(Verdict(one.id, "human", "bo", GOLD[one.id]) for one in some)
        store.add_verdicts(
            Verdict(one.id, "human", "cy", "other" if i % 5 == 0 else GOLD[one.id]) for i, one in enumerate(some[:40])
        )
    project = Project(folder)
    project.train(epochs=0, compare=False)
    project.evaluate()
    yield folder, teacher
    teacher.stop()


@pytest.fixture
def shop(trained: tuple[Path, Teacher], tmp_path: Path) -> Path:
    """A copy of the trained project."""
    return shutil.copytree(trained[0], tmp_path / "shop")


def test_compare_with_a_live_student_and_a_teacher(shop: Path, trained: tuple[Path, Teacher], visit: Visit) -> None:
    with Site(shop) as site:
        page = visit(f"{site.url}/compare")
        page.fill("#text", "my invoice is wrong at home")
        page.check("input[name=teacher]")
        page.click("main button.main")
        rows = page.locator("main table tr")
        expect(rows).to_have_count(4)  # base, teacher, student
        assert "test-model" in page.inner_text("main table") and trained[1].asked["my invoice is wrong at home"] == 1
        page.goto(f"{site.url}/compare")
        lines = ["where is my parcel at home", "what a nice day tonight", "a billing delivery other question"]
        page.fill("#text", "\n".join(lines))
        page.check("input[name=lines]")
        page.check("input[name=teacher]")
        page.click("main button.main")
        expect(page.locator("main table tr")).to_have_count(4)
        marks = ["differs" in row for row in page.locator("main table tr").all_inner_texts()[1:]]
        assert marks == sorted(marks, reverse=True)  # what differs comes first
        first = page.locator("main table td[dir=auto]").first.inner_text().removesuffix(" differs")
        page.locator("main table form button").first.click()
        page.wait_for_selector(".question")
        assert page.inner_text(".question") == first
        page.goto(f"{site.url}/compare")
        page.fill("#text", "user: hello\nassistant: hi\nuser: where is it?\nit is late")
        page.locator("input[name=teacher]").uncheck()
        page.click("main button.main")
        expect(page.locator("main table tr")).to_have_count(3)


def test_a_blind_vote_names_no_model_before_it(shop: Path, visit: Visit) -> None:
    with Site(shop) as site:
        page = visit(f"{site.url}/compare/blind")
        page.wait_for_selector("#main .label")
        told = re.compile("teacher|student|test-model", re.I)
        assert not told.search(page.content()), told.findall(page.content())
        for key in "ab":
            before = page.inner_text(".question")
            page.keyboard.press(key)
            page.wait_for_function("text => document.querySelector('.question')?.innerText !== text", arg=before)
            assert not told.search(page.inner_text("main"))
            status = page.inner_text("#status")
            assert "by teacher" in status and "by student" in status
        assert "2 votes" in page.inner_text("main") and "position bias" in page.inner_text("main")
        page.click("text=Show which model is which")
        assert "for the student" in page.inner_text("main")


def test_from_a_confusion_to_its_questions_and_verdicts(shop: Path, visit: Visit) -> None:
    with Site(shop) as site:
        page = visit(f"{site.url}/report")
        text = page.inner_text("main")
        assert "student" in text and "Cohen's kappa" in text and "bo and cy agree on 32 of 40" in text
        page.click("text=to settle")
        page.locator("details[open] a").first.click()
        expect(page.locator("table tr")).to_have_count(4)  # the teacher, bo and cy
        page.go_back()
        label = page.locator("main table a").first
        if label.count():
            label.click()
            assert page.locator("h1").inner_text() in ("billing", "delivery", "other")
        svg = page.request.get(f"{site.url}/report/accuracy.svg")
        assert svg.headers["content-type"] == "image/svg+xml" and b"<svg" in svg.body()


def test_a_run_is_watched_to_its_end(shop: Path, visit: Visit) -> None:
    with Site(shop) as site:
        page = visit(f"{site.url}/runs")
        page.click("section:has-text('Train') button")
        expect(page.locator("#state")).to_contain_text("Running")
        expect(page.locator("#state .lead")).to_have_text("Done", timeout=90_000)
        expect(page.locator("#state")).to_contain_text("exporting to ONNX")
        page.goto(f"{site.url}/runs")
        assert "done" in page.locator("main table tr").nth(1).inner_text()
    assert read_runs(shop)[0].code == 0


def test_a_run_of_a_terminal_shows_and_is_cancelled(folder: Path, teacher: Teacher, visit: Visit) -> None:
    teacher.delay_s = 0.2
    with Store(folder / "fingerpost.db") as store:
        fill(store)
        store.add_verdicts([])
    (folder / "more.csv").write_text("text\n" + "".join(f"{text} anew {i}\n" for i, (text, _) in enumerate(ALL)))
    Project(folder).import_file(folder / "more.csv")
    command = [sys.executable, "-m", "fingerpost", "label", "-C", str(folder), "--yes"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    with Site(folder) as site:
        wait(lambda: any(run.done for run in read_runs(folder)))
        page = visit(f"{site.url}/runs")
        page.locator("main table a").first.click()
        expect(page.locator("#state")).to_contain_text("Running")
        page.click("text=Stop it")
        expect(page.locator("#state .lead")).to_contain_text("Stopped", timeout=90_000)
    assert child.wait(MINUTES) == 130
    (run,) = read_runs(folder)
    assert not run.alive and run.code == 130 and 0 < run.done < 240 and run.cost_usd > 0


def test_a_killed_run_is_said_to_be_killed(folder: Path, teacher: Teacher) -> None:
    teacher.delay_s = 0.5
    (folder / "q.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in ALL))
    Project(folder).import_file(folder / "q.csv")
    command = [sys.executable, "-m", "fingerpost", "label", "-C", str(folder), "--yes"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(lambda: any(run.alive for run in read_runs(folder)))
    child.send_signal(signal.SIGKILL)
    child.wait(MINUTES)
    (run,) = read_runs(folder)
    assert not run.alive and run.code is None


def test_from_a_file_to_a_served_student_without_a_terminal(
    tmp_path: Path, teacher: Teacher, tiny_encoder: Path, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-test")
    file = tmp_path / "messages.csv"
    file.write_text("message\n" + "".join(f"{label}: {text}\n" for text, label in ALL))
    with Site(tmp_path / "project") as site:
        page = visit(f"{site.url}/")
        page.set_input_files("#file", file)
        page.click("main button.main")
        assert page.locator("select[name=text]").input_value() == "message"
        page.fill("#labels", "billing")
        page.fill("input[name=base_url]", teacher.base_url)
        page.click("text=Create the project")
        assert "at least two labels" in page.inner_text("main")
        page.go_back()
        page.fill("input[name=name]", "My shop")
        page.fill("#labels", "".join(f"{label}: what is {label}\n" for label in TEXTS))
        page.fill("input[name=model]", "test-model")
        page.fill("input[name=base_url]", teacher.base_url)
        page.fill("input[name=key_env]", "TEACHER_KEY")
        page.click("text=Create the project")
        page.wait_for_selector("text=240 questions are in the project")
        toml = tmp_path / "project" / "task.toml"
        toml.write_text(f'{toml.read_text()}\n[student]\nencoder = "{tiny_encoder.as_posix()}"\n')
        page.click("text=Ask it about five questions")
        expect(page.locator("main table tr")).to_have_count(6)
        page.fill("input[name=budget]", "5")
        page.click("main button:has-text('Go')")
        expect(page.locator("#state .lead")).to_have_text("Done", timeout=90_000)
        page.goto(f"{site.url}/review")
        for _ in range(50):
            text = page.inner_text(".question")
            label = text.split(":")[0]
            names = page.locator("#answer .label .name").all_inner_texts()
            page.keyboard.press(str(names.index(label) + 1))
            page.wait_for_function("text => document.querySelector('.question')?.innerText !== text", arg=text)
        page.goto(f"{site.url}/runs")
        page.click("section:has-text('Train') button")
        expect(page.locator("#state .lead")).to_have_text("Done", timeout=90_000)
        page.goto(f"{site.url}/runs")
        page.click("section:has-text('Serve') button")
        url = page.locator("code", has_text="http").inner_text()
        with openai.OpenAI(base_url=url, api_key="none") as client:
            messages = [{"role": "user", "content": "billing: my invoice is wrong"}]
            reply = client.chat.completions.create(model="student", messages=messages)  # type: ignore[arg-type]
        assert "billing" in str(reply.choices[0].message.content)
        page.click("text=Stop serving")
    with Store(tmp_path / "project" / "fingerpost.db") as store:
        assert sum(one.kind == "human" for found in store.verdicts().values() for one in found) == 50


def test_the_pages_of_a_server(shop: Path, browser: Browser) -> None:
    with Serving(shop / "served", shop) as server:
        address = server.url.replace("/v1", "/ui")
        with httpx2.Client(timeout=MINUTES) as client:
            assert client.get(f"{address}/").status_code == 200
            assert "default-src 'none'" in client.get(f"{address}/review").headers["content-security-policy"]
            assert client.get(f"{server.url}/models").json()["data"]


PAGES = (
    "/",
    "/review",
    "/review?sample=test",
    "/review/history",
    "/review/groups",
    "/compare",
    "/compare/blind",
    "/report",
    "/runs",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(shop: Path, browser: Browser, scheme: str, width: int) -> None:
    with Site(shop) as site:
        context = browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": 800},
            bypass_csp=True,  # type: ignore[arg-type]
        )
        page = context.new_page()
        wait(lambda: site.ui.queue.is_ready)
        question = next(iter(site.ui.queue.cards._cards))
        for place in (*PAGES, f"/questions/{question}", "/labels/billing", "/sign-in", "/no-such-page"):
            page.goto(f"{site.url}{place}")
            found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
            assert not found.response["violations"], (place, found.generate_report())
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), place
            assert len(page.content()) < 100_000
        context.close()
    folder = shop.parent / "new"
    folder.mkdir()
    (folder / "tickets.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ALL))
    with Site(folder) as site:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)  # type: ignore[arg-type]
        for place in ("/", "/start?file=tickets.csv"):
            page.goto(f"{site.url}{place}")
            found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
            assert not found.response["violations"], (place, found.generate_report())
        page.close()
