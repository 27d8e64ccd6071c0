"""What all pages share: the frame, static files, messages, errors."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from luthier.errors import Conflict
from service.dashboard import assets, layout
from service.http import error_handlers
from tests.integration.service_harness import Service, serving

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("pages") / "home", tick_seconds=5) as service:
        yield service


def test_without_jobs_the_page_says_how_to_begin(service: Service) -> None:
    page = service.http.get("/")
    assert "luthier submit data.jsonl" in page.text
    assert page.headers["cache-control"] == "no-store"


def test_scripts_are_files_of_the_service_alone(service: Service) -> None:
    page = service.http.get("/")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page.text, re.DOTALL)
    assert scripts
    assert not any(scripts)
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert [address for address in addresses if not address.startswith(("/", "#"))] == []


@pytest.mark.parametrize("name", assets.names())
def test_static_files_are_kept_for_good_under_their_version(service: Service, name: str) -> None:
    answer = service.http.get(assets.address(name))
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    plain = service.http.get(assets.address(name), headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content
    assert service.http.get(f"/static/older/{name}").headers["cache-control"] == "no-store"


def test_modules_import_only_modules_that_there_are() -> None:
    for path in assets.FOLDER.glob("*.js"):
        imported = re.findall(r'from "\./([^"]+)"', path.read_text())
        assert set(imported) <= set(assets.names()), path.name


def test_a_static_file_that_does_not_exist_is_an_error(service: Service) -> None:
    assert service.http.get("/static/any/..%2Fshell.py").status_code == 404
    assert service.http.get("/static/any/shell.py").status_code == 404


@pytest.mark.parametrize("path", ["/nowhere", "/jobs/ftjob-x", "/jobs/ftjob-x/events", "/jobs/compare?jobs=ftjob-x"])
def test_errors_are_pages_for_browsers_and_json_for_others(service: Service, path: str) -> None:
    page = service.http.get(path, headers=BROWSER)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "All jobs" in page.text
    answer = service.http.get(path)
    assert answer.json()["error"]["code"] == "not_found"


def test_the_api_answers_in_json_even_to_browsers(service: Service) -> None:
    answer = service.http.get("/v1/fine_tuning/jobs/ftjob-x", headers=BROWSER)
    assert answer.json()["error"]["code"] == "not_found"


def test_a_wrong_query_is_explained_on_a_page(service: Service) -> None:
    page = service.http.get("/?after=ftjob-x", headers=BROWSER)
    assert page.status_code == 404
    assert "ftjob-x" in page.text


def test_the_chosen_colours_are_those_of_the_page_from_its_first_byte(service: Service) -> None:
    assert 'data-theme="dark"' in service.http.get("/", headers={"cookie": f"{layout.THEME}=dark"}).text
    assert "data-theme=" not in service.http.get("/", headers={"cookie": f"{layout.THEME}=x"}).text


def test_a_message_is_shown_once_after_a_redirect_and_never_as_markup() -> None:
    app = FastAPI()
    error_handlers.install(app)

    @app.post("/act")
    def act() -> Response:
        return layout.redirect("/seen", say="Stopped <b>#3</b>; ü")

    @app.get("/seen")
    def seen(request: Request) -> Response:
        return layout.page(request, "error.html.jinja", title="", error=Conflict("x"), phrase="", code=0)

    with TestClient(app) as client:
        first = client.post("/act")
        assert "Stopped &lt;b&gt;#3&lt;/b&gt;; ü" in first.text
        assert "Stopped" not in client.get("/seen").text


def test_the_navigation_names_only_pages_that_there_are(service: Service) -> None:
    page = service.http.get("/").text
    shown = re.findall(r'<a href="([^"]+)"[^>]*>', page.split("<nav")[1].split("</nav>")[0])
    assert "/" in shown
    assert all(service.http.get(path).status_code == 200 for path in shown)
