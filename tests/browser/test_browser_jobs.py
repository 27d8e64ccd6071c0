"""The list of jobs, the page of a job and the comparison, in a real browser."""

import re
import threading
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from luthier.client import Client
from tests.browser.study import StudyWorker
from tests.integration.service_harness import Service, serving

pytestmark = pytest.mark.xdist_group("browser")  # one process starts the browser and the services
CHARTS = ("curves", "search", "slice", "parallel", "front", "timeline")


def open_job(page: Page, study: tuple[Service, str], query: str = "") -> None:
    service, job_id = study
    page.goto(f"{service.url}/jobs/{job_id}{query}")
    page.wait_for_selector("#job[data-ready]")


def drawn(page: Page, chart: str) -> None:
    page.locator(f"#chart-{chart}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#chart-{chart}[data-drawn]")


def test_the_list_leads_to_a_job_whose_charts_are_all_drawn(page: Page, study: tuple[Service, str]) -> None:
    service, job_id = study
    page.goto(service.url)
    page.get_by_role("link", name=re.compile("^ft:tiny-chat:support")).click()
    expect(page).to_have_url(f"{service.url}/jobs/{job_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("ft:tiny-chat:support")
    for chart in CHARTS:
        drawn(page, chart)
    best = service.client.best(job_id)
    expect(page.locator(".leaderboard tr.won td.design")).to_contain_text(re.compile("recommended|best so far"))
    expect(page.locator(".leaderboard tr.won")).to_have_attribute("data-number", str(best.number))
    assert page.locator("#chart-timeline .bars .point").count() >= 12


def test_the_leaderboard_sorts_filters_and_keeps_it_in_the_address(page: Page, study: tuple[Service, str]) -> None:
    open_job(page, study)
    numbers = page.locator(".leaderboard tbody tr td:nth-child(2)")
    page.locator(".leaderboard thead th:nth-child(2) a").click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("#")
    expect(numbers.first).to_have_text("#0")
    assert numbers.all_text_contents()[:2] == ["#0", "#1"]
    page.locator(".leaderboard thead th:nth-child(2) a").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text("#")
    expect(numbers.first).not_to_have_text("#0")
    shown = [int(text.removeprefix("#")) for text in numbers.all_text_contents()]
    assert shown == sorted(shown, reverse=True)
    page.get_by_role("searchbox").press_sequentially("untuned")
    expect(numbers).to_have_text(["#0"])
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(page).to_have_url(re.compile("q=untuned"))
    page.reload()
    expect(numbers).to_have_text(["#0"])


def test_nothing_is_lost_that_is_typed_while_the_service_answers(page: Page, study: tuple[Service, str]) -> None:
    open_job(page, study)
    answers = threading.Event()

    def late(route: Route) -> None:
        page.get_by_role("searchbox").press_sequentially("tuned")  # while the answer to "un" is under way
        answers.set()
        route.continue_()

    page.route("**/jobs/*q=un", late)
    page.get_by_role("searchbox").press_sequentially("un")
    numbers = page.locator(".leaderboard tbody tr td:nth-child(2)")
    expect(numbers).to_have_text(["#0"])
    assert answers.is_set()
    expect(page.get_by_role("searchbox")).to_have_value("untuned")
    expect(page).to_have_url(re.compile("q=untuned"))


def test_what_is_typed_before_the_script_is_there_counts_too(page: Page, study: tuple[Service, str]) -> None:
    service, job_id = study

    def late(route: Route) -> None:
        page.get_by_role("searchbox").press_sequentially("untuned")
        route.continue_()

    page.route("**/swap.js*", late)
    page.goto(f"{service.url}/jobs/{job_id}")
    expect(page.locator(".leaderboard tbody tr td:nth-child(2)")).to_have_text(["#0"])


def test_only_what_tells_the_chosen_designs_apart_is_shown(page: Page, study: tuple[Service, str]) -> None:
    service, job_id = study
    first, *_, last = [t for t in service.client.trials(job_id) if t.design.stages and t.confirms is None and t.metrics]
    open_job(page, study)
    for trial in (first, last):
        page.get_by_role("checkbox", name=f"Select trial {trial.number}", exact=True).click()
        expect(page.get_by_role("checkbox", name=f"Select trial {trial.number}", exact=True)).to_be_checked()
    page.get_by_label("only differences").check()
    expect(page.locator(".leaderboard tbody tr")).to_have_count(2)
    headings = page.locator(".leaderboard thead th").all_text_contents()
    one, other = (trial.design.stages[0].optimiser for trial in (first, last))
    assert ("learning rate" in headings) == (f"{one.learning_rate:.3g}" != f"{other.learning_rate:.3g}")
    assert "warmup" not in headings
    expect(page.locator(".common")).to_contain_text("warmup 0.05")
    expect(page.locator("#curves-named")).to_contain_text(f"#{last.number}")


def test_a_brush_on_the_parallel_axes_keeps_the_designs_that_pass_there(page: Page, study: tuple[Service, str]) -> None:
    open_job(page, study)
    drawn(page, "parallel")
    chart = page.locator("#chart-parallel")
    everything = int(chart.get_attribute("data-kept") or 0)
    axis = page.locator("#chart-parallel .reach[data-axis='bits per byte']")
    box = axis.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] * 0.3, steps=4)
    page.mouse.up()
    kept = int(chart.get_attribute("data-kept") or 0)
    assert 0 < kept < everything
    expect(page.locator("#parallel-count")).to_have_text(f"{kept} of {everything} designs")
    page.get_by_role("button", name="Select these").click()
    expect(page.locator("#picked-line .chip")).to_have_count(min(kept, 8))
    axis.focus()
    page.keyboard.press("Escape")
    expect(chart).to_have_attribute("data-kept", str(everything))
    page.keyboard.press("ArrowUp")
    assert int(chart.get_attribute("data-kept") or 0) < everything
    page.get_by_role("button", name="Clear").click()
    expect(chart).to_have_attribute("data-kept", str(everything))


def test_the_slice_and_the_curve_can_be_changed(page: Page, study: tuple[Service, str]) -> None:
    service, job_id = study
    told = [axis for axis in service.client.landscape(job_id).axes if axis.share is not None]
    axis = min(told, key=lambda axis: axis.share or 0.0).axis
    open_job(page, study)
    drawn(page, "slice")
    page.locator("#part-axes").get_by_role("link", name=axis, exact=True).click()
    expect(page.locator("#slice-axis")).to_have_value(axis)
    expect(page.locator("#chart-slice .xtitle")).to_have_text(axis)
    drawn(page, "curves")
    page.locator("#curve-name").select_option("valid_loss")
    expect(page.locator("#chart-curves .ytitle")).to_have_text("validation loss (nats per token)")


def test_a_chart_tells_of_the_point_under_the_pointer(page: Page, study: tuple[Service, str]) -> None:
    service, job_id = study
    open_job(page, study)
    drawn(page, "search")
    land = service.http.get(f"/v1/fine_tuning/jobs/{job_id}/landscape").json()
    _, number, summary = min(zip(land["last"], land["number"], land["summary"], strict=True))
    dots = page.locator("#chart-search .dots circle")
    box = min((dot.bounding_box() or {} for dot in dots.all()), key=lambda box: -box["y"])
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("#chart-search .tip")
    expect(tip).to_contain_text(f"#{number} {summary}")
    page.mouse.move(5, 5)
    expect(tip).to_be_hidden()


def test_dragging_zooms_into_a_chart_and_a_double_click_shows_all(page: Page, study: tuple[Service, str]) -> None:
    open_job(page, study)
    drawn(page, "curves")
    ticks = page.locator("#chart-curves .xtick text")
    whole = ticks.all_text_contents()
    box = page.locator("#chart-curves > svg").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2

    def zoom() -> None:
        page.mouse.move(box["x"] + 0.3 * box["width"], y)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.45 * box["width"], y, steps=3)
        expect(page.locator("#chart-curves .zoom")).to_be_visible()
        page.mouse.up()
        expect(ticks).not_to_have_text(whole)

    zoom()
    page.mouse.dblclick(box["x"] + 0.5 * box["width"], y)
    expect(ticks).to_have_text(whole)
    zoom()
    page.locator("#curve-log").check()  # other axes are shown whole
    expect(ticks).to_have_text(whole)


def test_a_running_job_grows_before_ones_eyes(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service, Client(service.url) as client:
        service.add_model()
        worker = StudyWorker(client._http, name="one", pause=0.05)
        worker.register()
        job_id = service.submit(search={"trials": 3, "confirmations": 0})
        page.goto(f"{service.url}/jobs/{job_id}")
        page.wait_for_selector("#job[data-ready]")
        expect(page.locator("#chart-curves .waiting")).to_be_visible()
        page.evaluate("window.stays = true")  # until the page is loaded anew
        worker.work(worker.take())
        second = worker.take()
        worker.train(second, 0.0, 0.4)
        expect(page.locator("#curves-named")).to_contain_text("#1")
        expect(page.locator(".leaderboard")).to_contain_text("running")
        thread = threading.Thread(target=lambda: (worker.work(second), worker.work_until_ended(client, job_id)))
        thread.start()
        expect(page.locator("#part-head .state")).to_have_text("succeeded")
        thread.join()
        expect(page.locator("#part-events")).to_contain_text("Finished: trial")
        expect(page.locator("#curves-named")).to_contain_text(re.compile("recommended|best so far"))
        assert page.evaluate("window.stays")
        page.goto("about:blank")  # the stream is closed before the service stops


def test_jobs_are_chosen_in_the_list_and_compared(page: Page, study: tuple[Service, str]) -> None:
    service, job_id = study
    with Client(service.url) as client:
        worker = StudyWorker(client._http, name="three")
        worker.register()
        other = service.submit(search={"trials": 2, "confirmations": 0})
        worker.work_until_ended(client, other)
    page.goto(service.url)
    compare = page.get_by_role("button", name="Compare selected jobs")
    expect(compare).to_be_disabled()
    page.locator(f"#compare-{job_id}").check()
    page.locator(f"#compare-{other}").check()
    compare.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare 2 jobs")
    drawn(page, "best")
    expect(page.locator("tr.differs", has_text="designs").first).to_contain_text("2 of 2")
    expect(page.locator("tr:not(.differs) th[scope=row]", has_text="untuned base")).to_be_visible()


def test_the_chosen_colours_stay_and_reach_the_charts(page: Page, study: tuple[Service, str]) -> None:
    open_job(page, study)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    tick = page.locator("#chart-search .xtick text").first
    colour = tick.evaluate("element => getComputedStyle(element).fill")
    page.locator("[data-theme-toggle]").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    expect(tick).not_to_have_css("fill", colour)
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_the_keyboard_reaches_the_content_and_chooses_a_trial(page: Page, study: tuple[Service, str]) -> None:
    open_job(page, study)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    box = page.get_by_role("checkbox", name="Select trial 1", exact=True)
    box.focus()
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    expect(box).to_be_focused()


@pytest.mark.parametrize("path", ["/", "/jobs/{job}", "/jobs/{job}/events", "/jobs/compare?jobs={job}", "/nowhere"])
def test_every_page_fits_a_phone(browser: Browser, study: tuple[Service, str], path: str) -> None:
    service, job_id = study
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.goto(service.url + path.format(job=job_id))
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_without_scripts_the_page_still_tells_how_the_job_went(browser: Browser, study: tuple[Service, str]) -> None:
    service, job_id = study
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{service.url}/jobs/{job_id}")
    expect(page.locator("#part-state")).to_contain_text("bits per byte")
    page.locator(".leaderboard thead th:nth-child(2) a").click()
    expect(page.locator(".leaderboard tbody tr").first).to_contain_text("untuned base")
    context.close()


def test_what_users_write_is_shown_and_never_run(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service:
        service.add_model()
        rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(60)]
        file = service.upload(rows, "<img src=x onerror=alert(1)>.jsonl")
        job_id = service.client.create_job(file, search={"trials": 2}).id
        page.goto(f"{service.url}/jobs/{job_id}")
        page.wait_for_selector("#job[data-ready]")
        expect(page.get_by_role("heading", level=1)).to_have_text("<img src=x onerror=alert(1)>.jsonl")
        assert page.locator("img").count() == 0
        page.goto("about:blank")


def test_an_error_is_a_page_for_browsers_and_json_for_programs(browser: Browser, study: tuple[Service, str]) -> None:
    service, _ = study
    page = browser.new_page()
    answer = page.goto(f"{service.url}/jobs/ftjob-x")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("Job ftjob-x was not found.")
    page.close()
    assert service.http.get("/jobs/ftjob-x").json()["error"]["code"] == "not_found"
