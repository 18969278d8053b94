import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fast_jukebox.demo.limits import Limits
from fast_jukebox.demo.models import StudioModel
from fast_jukebox.demo.studio import Studio

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def studio_of(tmp_path):
    """Makes a studio of models by name in an empty folder."""

    def make(limits=None, **models):
        named = [StudioModel(name, model, f"folder of {name}") for name, model in models.items()]
        return Studio(named, tmp_path / "studio", limits)

    return make


@pytest.fixture
def studio(studio_of, tiny_model):
    """A studio of the tiny model."""
    return studio_of(tiny=tiny_model)


@pytest.fixture
def sound():
    """A tone of a second at 8000 Hz."""
    return 0.5 * torch.sin(torch.arange(8000) / 3)


@pytest.fixture
def busy():
    """Occupies a studio's queue until it is called again."""
    ends = []

    def occupy(studio, visitor="another"):
        end = threading.Event()
        ends.append(end)
        work = studio.begin(visitor, "somewhere", lambda report: end.wait(60))

        def release():
            end.set()
            work.result()

        return release

    yield occupy
    for end in ends:
        end.set()


def browser_path():
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def chromium():
    """A real browser: the system's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    arguments = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def embedded_studio(tmp_path_factory):
    """A studio of the embedded model."""
    from fast_jukebox import FastJukeboxModel
    from fast_jukebox.models.loading import default_model_path

    model = FastJukeboxModel.from_pretrained(default_model_path()).eval()
    folder = tmp_path_factory.mktemp("studio")
    return Studio([StudioModel("embedded", model, str(default_model_path()))], folder, Limits(duration=30.0))


@pytest.fixture(scope="session")
def address(chromium, embedded_studio):
    """Where that studio is served."""
    pytest.importorskip("gradio", reason="the pages need Gradio")
    from fast_jukebox.demo import launch

    blocks, address = launch(embedded_studio, block=False)
    yield address
    blocks.close(verbose=False)


class Visitor:
    """A person at a browser: a page of its own, whose errors and requests are kept.

    Pictures are kept in the folder that FAST_JUKEBOX_SCREENSHOTS names, by default a temporary one.
    """

    def __init__(self, browser, address, pictures, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(300_000)
        self.errors, self.requests, self.pictures, self.expected = [], [], pictures, []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = address
        self.open()

    def open(self):
        self.page.goto(self.address)
        self.page.wait_for_selector("#play-begin")

    def tab(self, name):
        self.page.get_by_role("tab", name=name, exact=True).click()

    def wait(self, selector, text):
        self.page.locator(selector).filter(has_text=text).first.wait_for()

    def picture(self, name):
        self.page.evaluate("[...document.images].forEach(image => { image.loading = 'eager'; })")
        self.page.wait_for_function("[...document.images].every(image => image.complete || !image.offsetParent)")
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)

    def check(self):
        assert not [error for error in self.errors if not error.startswith(tuple(self.expected))]
        outside = [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))]
        assert not outside


class Server:
    """The command `fast-jukebox demo` in a process of its own."""

    def __init__(self, folder, port):
        command = [sys.executable, "-m", "fast_jukebox_cli", "demo", "--folder", folder, "--port", port]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert "The studio is at" in line
        self.address = f"http://127.0.0.1:{port}/"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def served(chromium, tmp_path):
    """Starts servers on the same folder and port: the first in a process of its own, the ones after it in this one."""
    from fast_jukebox.demo import launch
    from fast_jukebox_cli.studio import open_studio

    folder = tmp_path / "studio"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, later = Server(folder, port), []

    def serve():
        later.append(launch(open_studio([], folder), port=port, block=False)[0])

    yield server, serve
    server.kill()
    for blocks in later:
        blocks.close(verbose=False)


@pytest.fixture
def visit(chromium, address, tmp_path):
    """Sends a visitor to the studio; at the end no page had an error or asked for anything elsewhere."""
    pictures = Path(os.environ.get("FAST_JUKEBOX_SCREENSHOTS") or tmp_path / "screenshots")
    pictures.mkdir(parents=True, exist_ok=True)
    visitors = []

    def come(address=address, **options):
        visitors.append(Visitor(chromium, address, pictures, **options))
        return visitors[-1]

    yield come
    for visitor in visitors:
        visitor.context.close()
    for visitor in visitors:
        visitor.check()
