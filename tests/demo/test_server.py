import os

import pytest
import torch

gradio = pytest.importorskip("gradio", reason="the pages need Gradio")

from starlette.applications import Starlette  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from fast_jukebox.demo.app import build  # noqa: E402
from fast_jukebox.demo.limits import Limits  # noqa: E402
from fast_jukebox.demo.server import Headers, routes  # noqa: E402
from fast_jukebox.demo.sounds import new_token  # noqa: E402


@pytest.fixture
def client(studio):
    return TestClient(Starlette(routes=routes(studio), middleware=[Middleware(Headers, studio=studio)]))


def test_files_are_served_whole_and_in_parts(client, studio, sound):
    kept = studio.sounds.add(sound, 8000, "song")
    for name, kind in (("wav", "audio/wav"), ("flac", "audio/flac"), ("mp3", "audio/mpeg"), ("notes.png", "image/png")):
        answer = client.get(f"/studio/sound/{kept.token}/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
    whole = client.get(f"/studio/sound/{kept.token}/wav").content
    part = client.get(f"/studio/sound/{kept.token}/wav", headers={"range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == whole[100:200]


def test_live_sound_is_served(client, studio):
    token, live = studio.sounds.new_live(8000)
    live.write(torch.full((4,), 0.5))
    live.end()
    answer = client.get(f"/studio/live/{token}")
    assert answer.content == 4 * (16384).to_bytes(2, "little")
    assert "no-store" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "address",
    [
        "/studio/sound/{token}/facts.json",
        "/studio/sound/{token}/sound.wav",
        "/studio/sound/{token}/..%2f..%2fsecret",
        "/studio/sound/..%2f{token}/wav",
        "/studio/sound/%2e%2e/secret",
        "/studio/sound/../../secret",
        "/studio/sound/{other}/wav",
        "/studio/live/{token}",
        "/studio/test/{token}/tally.csv",
        "/studio/test/..%2fsounds%2f{token}/tally.json",
    ],
)
def test_nothing_else_is_served(client, studio, sound, address):
    (studio.folder / "secret").write_text("secret")
    token = studio.sounds.add(sound, 8000, "song").token
    answer = client.get(address.format(token=token, other=new_token()))
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_every_answer_forbids_what_comes_from_elsewhere(client):
    headers = client.get("/studio/live/nothing").headers
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_uploads_make_room(studio_of, tiny_model):
    studio = studio_of(Limits(sound_bytes=2500), tiny=tiny_model)
    for age in range(4):
        (studio.uploads_folder / str(age)).mkdir()
        path = studio.uploads_folder / str(age) / "sound.wav"
        path.write_bytes(bytes(1000))
        os.utime(path, (age, age))
    client = TestClient(Starlette(middleware=[Middleware(Headers, studio=studio)]))
    client.post("/gradio_api/upload")
    assert sorted(path.parent.name for path in studio.uploads_folder.rglob("*.wav")) == ["2", "3"]


def test_the_pages_send_nothing_and_keep_uploads_in_their_folder(studio):
    blocks = build(studio)
    assert blocks.analytics_enabled is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["GRADIO_TEMP_DIR"] == str(studio.uploads_folder)
    public = [function for function in blocks.fns.values() if function.api_visibility == "public"]
    assert not public
