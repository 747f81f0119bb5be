"""The fleet's page in a real browser: what people see, what they say on it, and who may."""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest

from contract import topics
from contract.picture import Features, Lines, Spectrum
from contract.report import Acknowledge, Verdict, Why
from server.fleet.reports import read
from tests.agent.conftest import Broker, Plant, broker, stopped_broker
from tests.browser import CONTRAST, Seen, chromium, until
from tests.server.fleet import WHY, FleetProcess, Said, T, alert, config, encode, health
from tests.server.test_models_command import Server

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

__all__ = ["broker", "chromium", "stopped_broker"]

PASSWORD = "beside the pump"  # noqa: S105  # of a page of this test alone
HOSTILE = "<img src=x onerror=window.owned=1>\"'&amp;\u202e"
PUMP = "/machine?" + urlencode({"site": "north", "node": "rpi-1", "asset": "pump-1"})
MOST = 10_000


def text(selector: str) -> str:
    return f"return document.querySelector({json.dumps(selector)})?.innerText"


def texts(selector: str) -> str:
    return f"return [...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)"


def features(asset: str, t: float, level: float) -> Features:
    names = ("temperature mean_16", "temperature std_4", "vibration mean_16")
    return Features(asset, t, names, (40.0 + level, None if t == T else 0.5, level))


def spectrum(asset: str, waveform: str = "accel") -> Spectrum:
    """Return one with a bearing's outer race at 100 Hz, and lines of its shaft at 25."""
    hz = tuple(float(n) for n in range(1, 400))
    shaken = tuple(0.8 if n == 25 else 0.01 for n in range(1, 400))
    struck = tuple(40.0 if n % 100 == 0 else 1.2 for n in range(1, 400))
    at_hz = {"shaft": 25.0, "bpfo": 100.0, "bpfi": 143.0}
    lines, envelope = Lines(hz, shaken), Lines(hz, struck)
    return Spectrum(asset, T, waveform, "g", lines, envelope, 1500.0, at_hz)


class Site(NamedTuple):
    """A server with a password, a broker, and who speaks there as nodes do."""

    process: FleetProcess
    say: Said
    url: str

    def show(self, what: Features | Spectrum, node: str = "rpi-1") -> None:
        waveform = what.waveform if isinstance(what, Spectrum) else ""
        topic = topics.picture_topic("north", node, what.asset, waveform)
        self.say.plant.publish(topic, encode(what))

    def ask(
        self, method: str, path: str, body: str = "", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        parts = urlsplit(self.url)
        assert parts.hostname
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, named)
        answer = connection.getresponse()
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return found[0], found[1], found[2].decode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "password").write_text(PASSWORD + "\n")
    broker = Broker(folder / "broker")
    broker.start()
    words = [f"runout/v1/north/+/+/{leaf}" for leaf in (topics.COMMAND, topics.VERDICT)]
    plant = Plant(broker.port, words)
    process = FleetProcess(folder, broker.port, [f'password_file = "{folder / "password"}"'])
    process.start().wait_for("connected to the broker")
    site = Site(process, Said(plant), process.url)
    site.say.status("rpi-1")
    site.say.config("rpi-1")
    bad = health("pump-1", T, "failing", health=0.1, score=3.0, why=WHY, marks=("flow.stuck",))
    site.say.health("rpi-1", bad, health("pump-2"), health("pump-3", T, "degraded", why=WHY))
    site.say.health("rpi-1", health("pump-4", T, "learning", health=None, score=None, rul_h=None))
    site.say.alert("rpi-1", alert("pump-1"))
    for n in range(30):
        site.show(features("pump-1", T + 3600.0 * n, n / 10))
    site.show(spectrum("pump-1"))
    site.say.settle()
    yield site
    process.close()
    plant.close()
    broker.stop()


@pytest.fixture
def seen(chromium: "Chrome", site: Site) -> Iterator[Seen]:
    """Return the page, behind its password, once all is there that was said."""
    enter(chromium, site.url)
    page = Seen(chromium, site.url.rstrip("/"))
    page.show(PUMP)
    page.wait("document.querySelectorAll('#spectra svg').length")
    yield page
    page.leave()


def enter(chromium: "Chrome", url: str, password: str = PASSWORD) -> None:
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    chromium.get(url)
    field = chromium.find_element("name", "password")
    field.send_keys(password)
    field.submit()
    until(lambda: chromium.execute_script("return document.readyState") == "complete")


# -- what people see ---------------------------------------------------------------------------


def test_the_password_is_asked_for_and_a_wrong_one_is_told(chromium: "Chrome", site: Site) -> None:
    enter(chromium, site.url, "guessed")
    page = Seen(chromium, site.url)
    page.wait("document.querySelector('[role=alert]')")
    assert page(text("[role=alert]")) == "That is not the password."
    enter(chromium, site.url)
    page.wait("document.body.dataset.ready")
    assert "1 of 4 machines is failing" in page(text("#overall h1"))
    for form in chromium.find_elements("css selector", "form[action='/logout']"):
        form.submit()
    page.wait("document.querySelector('input[type=password]')")
    page.leave()


def test_the_worst_come_first_in_words_shapes_and_numbers(seen: Seen) -> None:
    seen.show("/")
    rows = seen(texts("table.machines tbody tr"))
    assert [row.split()[0] for row in rows] == ["pump-1", "pump-3", "pump-4", "pump-2"]
    for word in ("failing", "10%", "40 h", "vibration is higher than usual", "flow.stuck"):
        assert word in rows[0]
    shapes = seen(
        "return [...document.querySelectorAll('table.machines .state svg')].map(p => p.innerHTML)"
    )
    assert len(set(shapes)) == 4  # colour alone tells not everybody
    assert seen("return document.title").startswith("(1) Machines")
    seen("document.querySelector('table.machines a').click()")
    seen.wait("location.pathname === '/machine'")


def test_a_machine_shows_what_speaks_against_it_first(seen: Seen) -> None:
    plots = seen(texts("#feature-curves figcaption"))
    assert plots[0].startswith("vibration, mean over 16 readings in mm/s speaks against it")
    assert any("temperature" in plot for plot in plots[1:])
    points = seen(
        "return [...document.querySelectorAll('#feature-curves figure')]"
        ".map(f => f.querySelector('polyline').getAttribute('points').split(' ').length)"
    )
    assert points[0] == 30
    assert "6.3 times its usual spread above where it began" in seen(text("#why"))


def test_a_spectrum_marks_where_faults_would_show(seen: Seen) -> None:
    names = seen(
        "return [...document.querySelectorAll('#spectra svg')].map(s => s.ariaLabel)",
    )
    assert names == ["Spectrum of accel in g", "Envelope spectrum of accel"]
    told = seen(texts("#spectra li"))
    by_name = {one.split()[0]: one for one in told}
    assert "1 x: 0.8 g" in by_name["shaft"]
    assert "stands out" in by_name["BPFO"]
    assert "stands out" not in by_name["BPFI"]
    # The mark of the outer race stands over the highest line.
    mark, peak = seen("""
        const plot = document.querySelectorAll('#spectra svg')[1];
        const points = plot.querySelector('polyline').getAttribute('points').split(' ')
          .map(p => p.split(',').map(Number));
        const low = points.reduce((a, b) => b[1] < a[1] - 0.01 ? b : a);
        return [Number(plot.querySelector('line.bpfo').getAttribute('x1')), low[0]];""")
    assert abs(mark - peak) < 0.2


def test_what_is_new_is_seen_without_a_reload(site: Site, seen: Seen) -> None:
    seen.show("/")
    seen("window.same = 1")
    site.say.health("rpi-1", health("pump-2", T + 60, "degraded"))
    count = (
        "[...document.querySelectorAll('.machines tr')].filter(r => /degraded/.test(r.innerText))"
    )
    seen.wait(f"{count}.length === 2")
    site.say.health("rpi-1", health("pump-2", T + 120))
    seen.wait(f"{count}.length === 1")
    assert seen("return window.same") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", PUMP, "/devices", "/federation"])
def test_all_text_can_be_read(seen: Seen, scheme: str, path: str) -> None:
    seen.show(path, scheme=scheme)
    found = seen(CONTRAST)
    assert len(found) > 10
    assert min(found) >= [4.5], min(found)  # WCAG 2.2, AA


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("path", ["/", PUMP, "/devices", "/federation"])
def test_the_page_is_as_wide_as_the_screen(seen: Seen, width: int, path: str) -> None:
    seen.show(path, width=width)
    assert seen("return document.documentElement.scrollWidth") <= width


def test_it_fetches_nothing_from_elsewhere_and_is_used_by_keyboard(
    chromium: "Chrome", site: Site, seen: Seen
) -> None:
    from selenium.webdriver import Keys

    seen.show(PUMP)
    hosts = seen("return [...new Set(performance.getEntriesByType('resource').map(e => e.name))]")
    assert {urlsplit(host).netloc for host in hosts} == {urlsplit(site.url).netloc}
    seen.press(Keys.TAB)
    assert seen("return document.activeElement.innerText") == "To the content"
    seen.press(Keys.ENTER)
    assert seen("return document.activeElement.id") == "main"
    # All that can be clicked can be reached.
    assert seen("return document.querySelectorAll('[onclick], [tabindex]:not(#main)').length") == 0
    assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_hostile_names_stay_names(chromium: "Chrome", site: Site, seen: Seen) -> None:
    name = HOSTILE
    site.say.health(
        "rpi-1",
        health(name, T, "failing", score=2.0, why=(Why(name, 1.0, name, 4.0),), marks=(name,)),
    )
    site.show(Features(name, T, (f"{name} {name}",), (1.0,)))
    site.show(msgspec.structs.replace(spectrum(name), waveform=name, unit=name))
    path = "/machine?" + urlencode({"site": "north", "node": "rpi-1", "asset": name})
    seen.show("/?q=" + urlencode({"": name})[1:])
    seen.wait("document.querySelector('table.machines')")
    assert seen("return document.querySelector('table.machines tbody a').textContent") == name
    seen.show(path)
    seen.wait("document.querySelectorAll('#spectra svg').length")
    assert seen("return document.querySelector('h1').textContent") == name
    assert seen("return window.owned === undefined && !document.querySelector('img')")
    assert seen("return document.scripts.length") == 1
    assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]


# -- what people say ---------------------------------------------------------------------------


def heard(site: Site, leaf: str) -> list[bytes]:
    return [body for topic, body in site.say.plant.heard if topic.endswith(f"/{leaf}")]


def test_an_alert_is_acknowledged_and_judged_on_the_page(
    chromium: "Chrome", site: Site, seen: Seen
) -> None:
    seen.show(PUMP)
    name = chromium.find_element("css selector", "form[action='/machine/acknowledge'] [name=by]")
    name.send_keys("Ada")
    name.submit()
    seen.wait("document.querySelector('.said')")
    assert seen(text(".said")).startswith("Sent:")
    (body,) = until(lambda: heard(site, topics.COMMAND))
    word = msgspec.json.decode(body, type=Acknowledge)
    assert (word.alert, word.by) == ("pump-1/0/1", "Ada")
    assert "not answered by the device yet" in seen(text("#alert"))

    seen("document.querySelector('#alert details').open = true")
    form = "form[action='/machine/verdict']"
    assert chromium.find_element("css selector", f"{form} [name=by]").get_attribute("value") == (
        "Ada"
    )
    chromium.find_element("css selector", f"{form} [name=fault]").send_keys("bearing")
    chromium.find_element("css selector", f"{form} [value=confirmed]").click()
    (body,) = until(lambda: heard(site, topics.VERDICT))
    verdict = msgspec.json.decode(body, type=Verdict)
    assert (verdict.verdict, verdict.fault, verdict.by) == ("confirmed", "bearing", "Ada")
    seen.wait("document.querySelectorAll('.told li').length === 2")


def test_only_who_was_let_in_and_a_form_of_this_page_is_heard(
    chromium: "Chrome", site: Site, seen: Seen
) -> None:
    fields = {"site": "north", "node": "rpi-1", "asset": "pump-1", "alert": "pump-1/0/1"}
    cookie = "; ".join(f"{c['name']}={c['value']}" for c in chromium.get_cookies())
    token = seen("return document.querySelector('[name=token]').value")
    before = len(heard(site, topics.COMMAND))
    ack, good = "/machine/acknowledge", urlencode(fields | {"token": token})
    assert site.ask("POST", ack, good)[0] == 401  # nobody
    assert site.ask("POST", ack, urlencode(fields), Cookie=cookie)[0] == 403  # of another page
    assert site.ask("POST", ack, good, Cookie=cookie, Origin="https://evil.example")[0] == 403
    assert site.ask("GET", "/", Cookie=cookie, Host="evil.example")[0] == 421
    assert site.ask("GET", "/metrics")[0] == 401
    assert site.ask("GET", "/", Accept="text/html")[1]["location"] == "/login"
    nothing = urlencode(fields | {"token": token, "asset": "pump-9"})
    assert site.ask("POST", ack, nothing, Cookie=cookie)[0] == 404
    assert len(heard(site, topics.COMMAND)) == before
    status, headers, _ = site.ask("POST", ack, good, Cookie=cookie)
    assert (status, urlsplit(headers["location"]).path) == (303, "/machine")
    until(lambda: len(heard(site, topics.COMMAND)) == before + 1)
    policy = site.ask("GET", "/", Cookie=cookie)[1]["content-security-policy"]
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lines": Lines((0.0, 1.0), (1.0, 1.0))}, "shape"),
        ({"lines": Lines((2.0, 1.0), (1.0, 1.0))}, "shape"),
        ({"lines": Lines((1.0, 2.0), (1.0,))}, "shape"),
        ({"envelope": Lines((1.0,), (-1.0,))}, "shape"),
        ({"at_hz": {"shaft": 0.0}}, "shape"),
        ({"waveform": "other"}, "waveform"),
        ({"asset": "pump-2"}, "asset"),
    ],
)
def test_a_spectrum_that_cannot_be_drawn_is_refused(change: dict[str, Any], reason: str) -> None:
    from contract.errors import DecodeError

    topic = topics.picture_topic("north", "n", "pump-1", "accel")
    read(topic, encode(spectrum("pump-1")))
    with pytest.raises(DecodeError) as caught:
        read(topic, encode(msgspec.structs.replace(spectrum("pump-1"), **change)))
    assert caught.value.reason == reason


# -- the federation ----------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path, grid: Any, stores: Any) -> Server:
    server = Server(tmp_path, grid, stores)
    for number in (1, 2):
        server.join(number)
        server.train()
    return server


@pytest.fixture
def serve(tmp_path: Path, broker: Broker) -> Iterator[Callable[..., FleetProcess]]:
    made: list[FleetProcess] = []

    def serve(*settings: str) -> FleetProcess:
        made.append(FleetProcess(tmp_path, broker.port, settings))
        made[-1].start().wait_for("connected to the broker")
        return made[-1]

    yield serve
    for process in made:
        process.close()


def test_a_version_is_rolled_back_and_handed_out_again(
    chromium: "Chrome", trained: Server, serve: Callable[..., FleetProcess], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    url = serve(f'password_file = "{tmp_path / "password"}"').url
    enter(chromium, url)
    page = Seen(chromium, url.rstrip("/"))
    page.show("/federation")
    assert page(texts("table.versions tbody th"))[0].startswith("2 handed out")
    assert page("return document.querySelectorAll('table.measured tbody tr').length") == 2

    def change(summary: str, button: str) -> None:
        from selenium.webdriver.common.by import By

        for one in chromium.find_elements(By.CSS_SELECTOR, "details.change"):
            opener = one.find_element(By.TAG_NAME, "summary")
            if opener.text != summary:
                continue
            opener.click()
            pressed = one.find_element(By.CSS_SELECTOR, "button")
            if pressed.text == button:
                one.find_element(By.NAME, "by").clear()
                one.find_element(By.NAME, "by").send_keys("Ada")
                pressed.click()
                return
        raise AssertionError(f"there is no {button!r}")

    change("Roll back", "Roll back to version 1")
    page.wait("document.querySelector('.said')")
    current = trained.registry.current()
    assert current is not None
    assert (current.version, current.manifest.restores) == (3, 1)
    assert "version 3 restores version 1, asked for by Ada" in page(text("table.rounds"))
    change("hand out again", "Hand out version 2")
    page.wait("document.querySelector('table.versions tbody th').innerText.startsWith('4')")
    current = trained.registry.current()
    assert current is not None
    assert (current.version, current.manifest.restores) == (4, 2)
    page.leave()


def test_without_a_password_nobody_changes_what_judges(
    chromium: "Chrome", trained: Server, serve: Callable[..., FleetProcess]
) -> None:
    url = serve().url
    page = Seen(chromium, url.rstrip("/"))
    page.show("/federation")
    assert "fleet.password_file" in page(text("main"))
    assert page("return document.querySelectorAll('details.change').length") == 0
    token = page("return document.querySelector('[name=token]').value")
    cookie = "; ".join(f"{c['name']}={c['value']}" for c in chromium.get_cookies())
    for path in ("/federation/promote", "/federation/rollback"):
        body = urlencode({"token": token, "asset_class": "pump", "version": "1"})
        host = urlsplit(url)
        connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
        connection.request("POST", path, body, {"Cookie": cookie})
        assert connection.getresponse().status == 403
        connection.close()
    assert trained.registry.versions() == [1, 2]
    page.leave()


def test_who_has_nothing_yet_is_told_what_to_do(
    chromium: "Chrome", serve: Callable[..., FleetProcess]
) -> None:
    page = Seen(chromium, serve().url.rstrip("/"))
    for path, words in (
        ("/", "runout-agent run"),
        ("/devices", "No device has been heard yet"),
        ("/federation", "runout-server run"),
        ("/machine?site=a&node=b&asset=c", "Nothing was ever heard"),
    ):
        page.show(path)
        assert words in page(text("main"))
    page.leave()


# -- many machines -----------------------------------------------------------------------------


def test_ten_thousand_machines_are_filtered_searched_and_paged(
    chromium: "Chrome", broker: Broker, serve: Callable[..., FleetProcess]
) -> None:
    process = serve()
    plant = Plant(broker.port)
    said = [Said(plant, f"site-{n:02d}") for n in range(20)]
    states = ("failing", "degraded", *("healthy",) * 8)
    for number in range(MOST):
        node = f"rpi-{number // 50:03d}"
        one = said[number // 500]
        if number % 50 == 0:
            one.status(node)
            place = msgspec.structs.replace(config(node), area=f"hall-{number // 100 % 5}")
            topic = topics.config_topic(one.site, node)
            plant.publish(topic, encode(place), retain=True)
        why = WHY if number % 10 < 2 else ()
        score = 2.0 - number / MOST
        one.health(node, health(f"pump-{number:05d}", T, states[number % 10], score=score, why=why))
    plant.settle()
    page = Seen(chromium, process.url.rstrip("/"))
    page.show("/")
    page.wait(
        "document.querySelector('#overall h1').innerText === '1,000 of 10,000 machines are failing'"
    )
    page.wait("document.querySelector('#overall').innerText.includes('200 of 200 devices online')")
    rows = "document.querySelectorAll('table.machines tbody tr')"
    assert page(f"return {rows}.length") == 50
    assert len(page("return document.documentElement.outerHTML")) < 150_000
    assert page("return document.querySelectorAll('#places a.site').length") == 12
    assert "8 sites more" in page(text("#places"))
    assert page(text(".pager span:not(.off)")) == "1 to 50 of 10,000"
    names = page(texts("table.machines tbody th a"))
    assert names[0] == "pump-00000"

    # What is typed is looked for at once.
    field = chromium.find_element("css selector", "form.filters [name=q]")
    field.send_keys("pump-07777")
    page.wait(f"{rows}.length === 1")
    assert page(text("table.machines tbody th a")) == "pump-07777"
    assert page("return location.search") == "?q=pump-07777"
    field.clear()
    field.send_keys("no such")
    page.wait("document.querySelector('#list .empty')")

    page.show("/?site=site-07&state=degraded")
    assert page(text(".pager span:not(.off)")) == "1 to 50 of 50"
    assert "hall-0" in page(text("#places"))
    page.show("/?site=site-07&area=hall-3&state=failing")
    assert page(text(".pager span:not(.off)")) == "1 to 10 of 10"
    page.show("/?order=name&page=200")
    assert page(texts("table.machines tbody th a"))[-1] == "pump-09999"
    page.show("/", width=390)
    assert page("return document.documentElement.scrollWidth") <= 390
    page.leave()
    plant.close()
