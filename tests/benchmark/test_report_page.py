"""The HTML page in a real browser: sorting, filters, sliders, rotation, links, hostile names, nothing from the network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import launch, wait_until
from report_world import EVIL, QUOTES, earlier_runs, make_world, write_comparison

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.leaderboard.report.changes import shown_comparison
from adlbench.benchmark.leaderboard.report.page import write_report

sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("results")
    frame = make_world(folder)
    comparison = write_comparison(folder / "gate" / "gate.json")
    made = write_report(frame, folder, folder / "out", runs=earlier_runs(frame), comparisons=[comparison])
    write_report(frame, folder, folder / "single", embed=True)
    return folder, made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


class Watched:
    """A page and everything that it asked for, said or tried."""

    def __init__(self, browser: Any, path: Path, **options: Any):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.path, self.said, self.asked = path, [], []  # type: ignore[var-annotated]
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.open("#/")

    def open(self, route: str) -> None:
        self.page.goto(f"{self.path.as_uri()}{route}")
        self.page.wait_for_selector("body[data-ready]")

    def quiet(self) -> None:
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("file://", "data:", "blob:"))] == []

    def column(self, number: int) -> list[str]:
        return [text.strip() for text in self.page.locator(f".board tbody tr > :nth-child({number})").all_inner_texts()]


@pytest.fixture
def page(world: tuple[Path, Any], browser: Any) -> Iterator[Watched]:
    watched = Watched(browser, world[0] / "out" / "report.html")
    yield watched
    watched.quiet()
    watched.context.close()


def table_of(page: Watched, text: str) -> str:
    """The route of the first table whose entry in the list holds ``text``."""
    return page.page.locator("#jump option", has_text=text).first.get_attribute("value")  # type: ignore[no-any-return]


def test_table_sorts_and_filters(page: Watched) -> None:
    page.open(table_of(page, "scene, short, cpu"))
    names = [name.removesuffix("trivial").strip() for name in page.column(2)]
    assert names == ["also_sharp", "sharp", "blurred", "nearest"] or names[:2] == ["sharp", "also_sharp"]
    assert page.column(1)[:2] == ["1", "1"]  # not separated by the paired test
    page.page.get_by_role("button", name="psnr dB ↑").click()
    values = [float(text.split(" ")[0]) for text in page.column(3)]
    assert values == sorted(values, reverse=True)
    page.page.get_by_role("button", name="psnr dB ↑").click()
    assert [float(text.split(" ")[0]) for text in page.column(3)] == values[::-1]
    assert page.page.locator("th[aria-sort=ascending]").count() == 1
    page.page.get_by_label("Filter", exact=False).first.fill("SHARP")
    assert len(page.column(2)) == 2
    page.page.get_by_label("Filter", exact=False).first.fill("")
    page.page.get_by_label("trivial methods").uncheck()
    assert not any("nearest" in name for name in page.column(2))
    page.page.get_by_role("combobox", name="Cost").select_option("latency_ms")
    assert page.page.locator("svg.chart[aria-label^='psnr against latency']").count() == 1


def test_split_tables_say_why_and_link_to_each_other(page: Watched) -> None:
    page.open(table_of(page, "scene, full"))
    text = page.page.locator(".split").inner_text()
    assert "not comparable" in text
    assert "fidelity (full, short)" in text
    page.page.locator(".split a").first.click()
    wait_until(page.page, "document.querySelector('h1').textContent.includes('scene')")


def test_slider_moves_the_border_between_truth_and_prediction(page: Watched) -> None:
    page.open(table_of(page, "scene, short, cpu"))
    page.page.get_by_role("button", name="views", exact=True).click()
    over = page.page.locator(".compare .over")
    before = over.evaluate("node => node.style.clipPath")
    slider = page.page.get_by_role("slider", name=re.compile("Share of truth"))
    slider.focus()
    page.page.keyboard.press("ArrowRight")
    assert over.evaluate("node => node.style.clipPath") != before
    page.page.locator(".compare").click(position={"x": 5, "y": 20})
    assert float(slider.input_value()) < 10
    page.page.get_by_role("button", name="View 2").click()
    loaded = "[...document.querySelectorAll('.compare img')].every(i => i.complete && i.naturalWidth === 24)"
    wait_until(page.page, loaded)


@pytest.mark.parametrize(("title", "views"), [("parts", 3), ("shapes", 3)])
def test_clouds_and_meshes_turn_with_pointer_and_keys(page: Watched, title: str, views: int) -> None:
    page.open(table_of(page, "scene, short, cpu"))
    page.page.get_by_role("button", name=title, exact=True).click()
    page.page.wait_for_selector("canvas.view")
    canvas = page.page.locator("canvas.view")
    assert canvas.count() == views

    def pictures() -> list[str]:
        page.page.wait_for_timeout(150)
        return canvas.evaluate_all("nodes => nodes.map(node => node.toDataURL())")  # type: ignore[no-any-return]

    first = pictures()
    drawn = "node => node.getContext('2d').getImageData(0, 0, 400, 400).data.filter((v, i) => i % 4 === 3 && v).length"
    assert all(canvas.nth(index).evaluate(drawn) > 1500 for index in range(views))
    box = canvas.first.bounding_box()
    page.page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 120, box["y"] + 70)
    page.page.mouse.up()
    turned = pictures()
    assert all(a != b for a, b in zip(first, turned))  # all views turn together
    canvas.last.focus()
    page.page.keyboard.press("Home")
    assert pictures() == first


def test_run_page_shows_configuration_curves_log_and_command(page: Watched) -> None:
    page.open(table_of(page, "scene, short, cpu"))
    page.page.locator(".board tbody th a", has_text="sharp").first.click()
    page.page.wait_for_selector("pre[aria-label=Log]")
    log = page.page.locator("pre[aria-label=Log]").inner_text()
    assert log.startswith(EVIL)
    assert "last line" in log
    command = page.page.locator("pre[aria-label=Command]").inner_text()
    assert command.startswith("adlbench run task=nvs dataset=scene method=")
    assert page.page.locator("svg.chart[aria-label='eval/psnr']").count() == 1
    text = page.page.locator("main").inner_text()
    assert "learning_rate" in text
    assert QUOTES.replace("\u2028", "") in text.replace("\u2028", "")


def test_seconds_to_quality_are_read_from_evaluations(page: Watched) -> None:
    """Target: nine tenths from the trivial 20 to the best 31: about 29.9, which 20 + 0.4 s / (1/4) reaches at 6.25 s."""
    page.open(table_of(page, "scene, short, cpu"))
    section = page.page.locator("section.card", has_text="Seconds to quality").first.inner_text()
    seconds = re.search(r"sharp\s+([\d.]+)", section)
    assert seconds is not None
    assert float(seconds[1]) == pytest.approx(6.2, abs=0.3)


def test_comparison_of_two_commits_is_shown(page: Watched) -> None:
    shown = page.page.locator("section.card", has_text="Before and after")
    text = shown.inner_text()
    assert "slower or less accurate" in text
    assert EVIL in text
    times = shown.locator("table").first.locator("tbody tr")
    assert [row.split("\t")[-2:] for row in times.all_inner_texts()] == [
        ["+8.0 %", "✗ slower"], ["+25.0 %", "✗ heavier"], ["–", "! could not run"]
    ]  # fmt: skip
    assert times.nth(0).locator("svg").get_attribute("aria-label") == "+8.0 %, interval +6.0 % to +10.0 %"
    quality = shown.locator("table").nth(1).locator("tbody tr").first.inner_text()
    assert quality.endswith("psnr\t0.9000\t0.8000\t−0.1000\t0.0100\t5\t✗ worse")


def test_course_over_commits(page: Watched) -> None:
    page.open(table_of(page, "scene, short, cpu"))
    shown = page.page.locator("section.card", has_text="Over commits")
    assert "aaaaaaaa to bbbbbbbb" in shown.locator("svg.chart[aria-label='psnr over commits']").text_content()
    shown.get_by_role("combobox", name="Quantity").select_option("throughput")
    assert shown.locator("svg.chart[aria-label='throughput over commits']").count() == 1


def test_what_is_no_comparison_is_named(world: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"boards": []}')
    for path in (tmp_path / "other.json", tmp_path / "absent.json"):
        with pytest.raises(AdlbenchError, match=f"{path.name}: not a comparison .*adlbench compare A B"):
            shown_comparison(path)


def test_runs_link_to_their_experiment_on_a_server(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000/")
    made = write_report(make_world(tmp_path), tmp_path, tmp_path / "out")
    page = Watched(browser, made.path)
    page.open("#/run/key0")
    link = page.page.get_by_role("link", name="in MLflow")
    assert link.get_attribute("href") == f"http://127.0.0.1:5000/#/experiments/7/runs/{'0' * 32}"
    page.quiet()
    page.context.close()


def test_every_link_leads_somewhere(page: Watched) -> None:
    hrefs = page.page.locator("main a").evaluate_all("nodes => nodes.map(node => node.getAttribute('href'))")
    options = page.page.locator("#jump option").evaluate_all("nodes => nodes.map(node => node.value)")
    assert len(options) >= 5
    for href in dict.fromkeys([*options, *hrefs]):
        assert href.startswith("#/")
        page.open(href)
        heading = page.page.locator("h1").inner_text()
        assert heading
        assert "no such page" not in heading
    page.open("#/run/none")
    assert "no such page" in page.page.locator("h1").inner_text()


def test_hostile_names_stay_text(page: Watched, world: tuple[Path, Any]) -> None:
    for route in page.page.locator("#jump option").evaluate_all("nodes => nodes.map(node => node.value)"):
        page.open(route)
        buttons = page.page.locator(".tabs[aria-label=Pictures] button")
        for index in range(buttons.count()):
            buttons.nth(index).click()
        assert page.page.locator("main script, main img[onerror]").count() == 0
    assert EVIL in page.page.locator("#jump").inner_text() or EVIL in page.page.content().replace("&lt;", "<").replace(
        "&gt;", ">"
    )
    written = {path.relative_to(world[0]).parts[0] for path in world[0].rglob("*") if path.is_file()}
    assert written == {"out", "single", "runs", "gate"}
    assert not (world[0].parent / "x").exists()
    assert all(re.fullmatch(r"[0-9a-f]{16}\.(png|js)", path.name) for path in (world[0] / "out/report_files").iterdir())


def test_embedded_page_is_alone(world: tuple[Path, Any], browser: Any, tmp_path: Path) -> None:
    alone = tmp_path / "report.html"
    alone.write_bytes((world[0] / "single" / "report.html").read_bytes())
    assert not (world[0] / "single" / "report_files").exists()
    page = Watched(browser, alone)
    page.open(table_of(page, "scene, short, cpu"))
    for title in ("views", "parts", "shapes", "samples", "paths"):
        page.page.get_by_role("button", name=title, exact=True).click()
        page.page.wait_for_timeout(150)
    assert page.page.locator("main").inner_text().count("is missing") == 0
    # some versions of Chromium report a change of the fragment as one more request
    assert {url.partition("#")[0] for url in page.asked if url.startswith("file://")} == {alone.as_uri()}
    page.quiet()
    page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1600, "light"), (1600, "dark")])
def test_accessible_and_fits_the_screen(world: tuple[Path, Any], browser: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = Watched(browser, world[0] / "out" / "report.html", color_scheme=scheme)
    page.page.set_viewport_size({"width": width, "height": 900})
    table = table_of(page, "scene, short, cpu")
    for route in ("#/", table, "#/run/key0", *([f"{table}/all"] if width == 1600 else [])):
        page.open(route)
        page.page.wait_for_timeout(200)
        if route == table:
            page.page.get_by_role("button", name="parts", exact=True).click()
            page.page.wait_for_selector("canvas.view")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width, route
        found = axe.run(page.page)
        problems = [(v["id"], v["nodes"][0]["html"][:160]) for v in found.response["violations"]]
        assert problems == [], route
    page.quiet()
    page.context.close()


def test_keyboard_reaches_what_can_be_used(page: Watched) -> None:
    page.open(table_of(page, "scene, short, cpu"))
    assert page.page.evaluate("document.activeElement.id") == "main"  # where a link leads is read from its start
    page.page.reload()
    page.page.wait_for_selector("body[data-ready]")
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.className") == "skip"
    page.page.keyboard.press("Enter")
    assert page.page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(40):
        page.page.keyboard.press("Tab")
        seen.add(page.page.evaluate("document.activeElement.tagName"))
    assert {"BUTTON", "INPUT", "SELECT", "A"} <= seen


def test_page_is_small_before_pictures(world: tuple[Path, Any]) -> None:
    made = world[1]
    assert made.page_bytes < 1_000_000
    assert made.boards >= 5
    text = made.path.read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert data is not None
    assert json.loads(data[1])["boards"]
    assert np.isfinite(made.picture_bytes)
