"""The report in a real browser: it draws, selects, sorts and filters, by mouse and by keyboard."""

import dataclasses
import shutil
import urllib.parse

import pytest
from conftest import conclude_again
from test_report import TRIALS, write_many

from budgetflow.base.files import read_json, write_json
from budgetflow.cli.report import report
from budgetflow.results.reading import open_study
from budgetflow.studies.store.trial import read_trials, write_trial

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no browser is installed"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def workdir(completed_workdir, tmp_path_factory):
    copy = shutil.copytree(completed_workdir, tmp_path_factory.mktemp("pages") / "runs")
    write_many(copy / "many", open_study(copy / "round1").config)
    report(str(copy))
    report(str(copy), ["round1", "round2"])
    return copy


@pytest.fixture
def open_page(browser):
    """Opens a page; at the end, nothing went wrong on it and nothing but files was asked for."""
    context = browser.new_context()
    said, asked = [], []

    def opened(path, width=1200):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{path}")
        page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
        return page

    yield opened
    assert said == []
    assert asked and all(url.startswith(("file://", "data:")) for url in asked)
    context.close()


def shown_rows(page):
    return page.locator(".trials tbody tr:visible").count()


def faint(page, panel):
    """How many marks of a panel are faint, since their trials are not selected."""
    marks = page.locator("figure", has_text=panel).locator("path[opacity='0.07']")
    return marks.count()


@pytest.mark.parametrize(
    "page", ["lr_sweep/report", "round1/report", "round2/report", "index", "round1_and_round2"]
)
@pytest.mark.parametrize("width", [390, 1200])
def test_every_page_draws_and_fits(open_page, workdir, page, width):
    opened = open_page(workdir / f"{page}.html", width)
    plots, drawn = opened.locator("figure .plot"), opened.locator("figure .plot svg")
    assert plots.count() == drawn.count() and (plots.count() > 2 or page == "index")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_markup_in_names_and_values_is_text(open_page, workdir, tmp_path):
    evil = '</script><img src="data:," onerror="window.hacked = 1"><u>{{ 7 * 7 }}</u>'
    name = evil.replace("/", "\u2215")  # as a folder may be named
    folder = shutil.copytree(workdir / "round1", tmp_path / "runs" / name)
    config = read_json(folder / "config.json")
    config["config"] |= {"description": evil, "tags": [evil]}
    config["config"]["search"]["space"][0]["name"] = evil
    write_json(folder / "config.json", config)
    begun = read_json(folder / "begun.json")
    write_json(folder / "begun.json", begun | {"command": evil, "builds_on": evil})
    for record in read_trials(folder):
        values = {**record.hyperparameters, evil: evil}
        write_trial(folder, dataclasses.replace(record, hyperparameters=values))
    outcome = read_json(folder / "outcome.json")
    write_json(folder / "outcome.json", outcome | {"reasons": [evil, *outcome["reasons"]]})
    conclude_again(folder)
    shutil.copytree(workdir / "round2", tmp_path / "runs" / "round2")
    of_one = report(str(folder))
    for path in (
        of_one,
        report(str(tmp_path / "runs")),
        report(str(folder.parent), [name, "round2"]),
    ):
        page = open_page(urllib.parse.quote(str(path)))
        assert page.evaluate("window.hacked") is None
        assert page.locator("u, img[onerror]").count() == 0
        assert "{{ 7 * 7 }}" in page.inner_text("body")
    page.set_content(evil)  # where it is not text, it is noticed
    page.wait_for_function("window.hacked === 1")


def test_five_hundred_trials_are_drawn_and_selected(open_page, workdir):
    page = open_page(workdir / "many" / "report.html")
    assert shown_rows(page) == TRIALS
    page.locator(".filter").fill("status=diverged")
    assert shown_rows(page) == TRIALS // 9


def test_a_trial_is_named_under_the_mouse_and_shown_by_a_click(open_page, workdir):
    page = open_page(workdir / "round1" / "report.html")
    best = open_study(workdir / "round1").found.best_trial
    mark = page.locator("figure", has_text="momentum").locator("path[fill='var(--best)']").first
    assert not page.locator("#tip").is_visible() and not page.locator("aside").is_visible()
    mark.hover()
    assert page.locator("#tip").inner_text().startswith(f"trial {best}: best trial")
    mark.click()
    aside = page.locator("aside")
    assert aside.locator("h3").inner_text() == f"Trial {best} of round1: best trial"
    text = aside.inner_text()
    for what in ("optimizer.momentum", "schedule", "where its steps came from", "checkpoints"):
        assert what in text
    aside.locator(".plot svg").nth(1).wait_for()
    page.keyboard.press("Escape")
    assert not aside.is_visible()


def test_a_brush_selects_in_all_panels_and_in_the_table(open_page, workdir):
    page = open_page(workdir / "round1" / "report.html")
    trials = shown_rows(page)
    assert faint(page, "weight decay") == 0
    plot = page.locator("figure", has_text="momentum").first.locator("svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = box["x"] + 75, box["y"] + 25  # inside the axes
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + (box["width"] - 60) / 2, y + 170, steps=5)
    page.mouse.up()
    page.wait_for_function("document.querySelector('.count').textContent.includes(' of ')")
    left = shown_rows(page)
    assert 0 < left < trials and faint(page, "weight decay") == trials - left
    assert page.locator(".count").inner_text() == f"{left} of {trials} trials"
    page.locator(".clear").click()
    page.wait_for_function("!document.querySelector('.count').textContent.includes(' of ')")
    assert shown_rows(page) == trials and faint(page, "weight decay") == 0


def test_the_table_sorts_and_filters(open_page, workdir):
    page = open_page(workdir / "round1" / "report.html")
    values = open_study(workdir / "round1").to_pandas()["optimizer.momentum"]
    button = page.locator(".trials th[data-name=momentum] button")
    numbers = "[...document.querySelectorAll('.trials tbody tr')].map(r => +r.dataset.trial)"
    button.click()
    assert page.evaluate(numbers) == list(values.sort_values().index)
    button.click()
    assert page.evaluate(numbers) == list(values.sort_values(ascending=False).index)
    page.locator(".filter").fill("momentum<0.9 complete")
    assert shown_rows(page) == (values < 0.9).sum() == len(values) - faint(page, "weight decay")
    page.locator(".filter").fill("nothing of that name")
    assert shown_rows(page) == 0


def test_all_of_it_works_by_keyboard(open_page, workdir):
    page = open_page(workdir / "round1" / "report.html")
    order = page.evaluate(
        "[...document.querySelectorAll('.trials tbody tr')].map(r => +r.dataset.trial)"
    )
    title = page.locator("aside h3")
    page.locator("figure .plot").first.focus()
    for number in order[:2]:
        page.keyboard.press("ArrowRight")
        assert title.inner_text().startswith(f"Trial {number} of")
    page.keyboard.press("ArrowLeft")
    assert title.inner_text().startswith(f"Trial {order[0]} of")
    page.keyboard.press("Escape")
    assert not page.locator("aside").is_visible()
    page.locator(".trials tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert title.inner_text().startswith(f"Trial {order[1]} of")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.trial") == str(order[1])
    button = page.locator(".trials th[data-name=trial] button")
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator(".trials th[data-name=trial]").get_attribute("aria-sort") == "ascending"
