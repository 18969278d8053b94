"""The pages in a real browser, used as a person would."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def choose(page, field, name):
    page.get_by_label(field, exact=True).first.click()
    page.get_by_role("option", name=name, exact=True).click()


def play(visitor, seconds):
    visitor.page.get_by_label("Duration (seconds)").first.fill(str(seconds))
    visitor.page.get_by_role("button", name="Play", exact=True).click()


ORDER = """() => {
    window.order = [];
    const note = (word, now) => now && !order.includes(word) && order.push(word);
    setInterval(() => {
        note('done', document.querySelector('#play-status').innerText.includes('Done.'));
        note('heard', fastJukebox.live && fastJukebox.live.firstSound !== null);
    }, 20);
}"""
"""Notes in which order a song is heard and done."""


def test_a_song_is_heard_while_it_is_made_and_can_be_kept(visit):
    visitor = visit()
    page = visitor.page
    choose(page, "Genre", "jig")
    choose(page, "Artist or instrument", "fiddle")
    page.evaluate(ORDER)
    play(visitor, 5)
    page.wait_for_function("fastJukebox.live && fastJukebox.live.firstSound !== null")
    visitor.wait("#play-status", "left")
    visitor.picture("play-working")
    visitor.wait("#play-status", "Done.")
    assert page.evaluate("order") == ["heard", "done"]
    result = page.locator("#play-result")
    assert "jig by fiddle" in result.inner_text()
    assert (
        result.locator("audio").evaluate(
            "player => new Promise(done => { const f = () => done(player.duration);"
            "player.readyState ? f() : player.onloadedmetadata = f; })"
        )
        == 5
    )
    for kind in ("WAV", "FLAC", "MP3"):
        with page.expect_download() as download:
            result.get_by_role("link", name=kind, exact=True).click()
        assert download.value.suggested_filename.endswith(f".{kind.lower()}")
        assert soundfile.info(download.value.path()).duration == 5
    page.get_by_text("Spectrogram").click()
    visitor.picture("play")


def test_a_song_is_stopped(visit):
    visitor = visit()
    play(visitor, 30)
    visitor.page.wait_for_function("fastJukebox.live && fastJukebox.live.firstSound !== null")
    visitor.page.get_by_role("button", name="Stop", exact=True).first.click()
    visitor.wait("#play-status", "Stopped; this is what there is.")
    visitor.page.locator("#play-result audio").wait_for()


def test_two_browsers_wait_for_each_other_and_neither_disturbs_the_other(visit):
    ann, bob = visit(), visit()
    play(ann, 10)
    ann.wait("#play-status", "left")
    play(bob, 1)
    bob.wait("#play-status", "In the queue: 1 before you, 2 in all")
    ann.wait("#play-status", "1 waiting behind you")
    bob.picture("queue")
    ann.wait("#play-status", "Done.")
    bob.wait("#play-status", "Done.")
    assert "10.00 s" in ann.page.inner_text("#play-result")
    assert "1.00 s" in bob.page.inner_text("#play-result")


UNNAMED = """
[...document.querySelectorAll('button, audio, input, select, textarea')].filter(each => each.offsetParent &&
    !(each.innerText || each.ariaLabel || each.title || (each.labels && each.labels.length) || each.placeholder))
.map(each => each.outerHTML)
"""


@pytest.mark.parametrize("name", ["Continue", "Compose", "Compare", "Inside"])
def test_every_page_fits_a_phone_and_every_control_has_a_name(visit, name):
    visitor = visit(**PHONE)
    page = visitor.page
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.first.is_visible():
        page.get_by_role("button", name="More tabs").click()
        tab = page.get_by_role("button", name=name, exact=True)
    tab.first.click()
    page.get_by_role("tabpanel").filter(has=page.locator(f"[id^={name.lower()}-]")).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not page.evaluate(UNNAMED)


def test_a_phone_in_the_dark_by_keyboard(visit):
    visitor = visit(**PHONE, color_scheme="dark")
    page = visitor.page
    assert page.evaluate("document.body.classList.contains('dark')")
    page.get_by_role("button", name="Play", exact=True).focus()
    page.get_by_label("Duration (seconds)").first.fill("1")
    page.get_by_role("button", name="Play", exact=True).press("Enter")
    visitor.wait("#play-status", "Done.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not page.evaluate(UNNAMED)
    visitor.picture("phone-dark")


FOCUSED = """() => {
    const field = document.activeElement, style = getComputedStyle(field);
    return [(field.ariaLabel || field.innerText || field.labels?.[0]?.innerText || '').trim(), style.outlineStyle];
}"""


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(visit):
    page = visit().page
    reached = {}
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        name, outline = page.evaluate(FOCUSED)
        reached[name] = outline
    assert {"Light or dark", "Play", "Inside", "Genre", "Artist or instrument", "Stop"} <= reached.keys()
    assert set(reached.values()) == {"solid"}, reached


def test_a_recording_is_uploaded_trimmed_seen_and_continued(visit, tmp_path):
    tune = np.concatenate([np.sin(np.arange(22050) * 2 * np.pi * pitch / 44100) for pitch in (440, 494, 554, 587)])
    soundfile.write(tmp_path / "tune.wav", 0.3 * tune, 44100)
    visitor = visit()
    page = visitor.page
    visitor.tab("Continue")
    page.locator("#continue-upload input[type=file]").set_input_files(tmp_path / "tune.wav")
    visitor.wait("#continue-seen", "0.00 to 2.00 s")
    wave = page.locator("#continue-seen .fj-wave").bounding_box()
    page.mouse.click(wave["x"] + 0.75 * wave["width"], wave["y"] + 20)
    visitor.wait("#continue-seen", "0.00 to 1.50 s")
    panel = page.get_by_role("tabpanel").filter(has=page.locator("#continue-begin"))
    panel.get_by_label("Seconds to add").first.fill("2")
    page.get_by_role("button", name="Continue it").click()
    visitor.wait("#continue-status", "Done.")
    assert page.locator("#continue-result audio").count() == 2
    visitor.picture("continue")


def test_a_recording_of_the_microphone_is_continued(visit):
    visitor = visit(permissions=["microphone"])
    page = visitor.page
    visitor.tab("Continue")
    page.locator("#continue-upload").get_by_role("button", name="Record audio").click()
    page.locator("#continue-upload").get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.locator("#continue-upload").get_by_role("button", name="Stop").first.click()
    visitor.wait("#continue-seen", "0.00 to")
    assert page.locator("#continue-seen audio").count() == 1


def test_what_is_no_sound_and_what_is_too_large_is_told(visit, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    visitor = visit()
    visitor.expected = ["Waveform load error"]
    visitor.tab("Continue")
    visitor.page.locator("#continue-upload input[type=file]").set_input_files(tmp_path / "text.wav")
    visitor.wait("#continue-seen [role=alert]", "text.wav")


def compose(visitor, title, seconds=2):
    page = visitor.page
    visitor.tab("Compose")
    page.get_by_label("Title").fill(title)
    page.get_by_label("Seconds of the draft").first.fill(str(seconds))
    page.get_by_role("button", name="Draft", exact=True).click()


def step(visitor, button, text="Done."):
    """Press a button and wait until something is said that was not said before."""
    visitor.page.locator("#compose-status").evaluate("element => element.querySelector('.fj-note')?.remove()")
    visitor.page.get_by_role("button", name=button, exact=True).first.click()
    visitor.wait("#compose-status", text)


def test_a_song_is_composed(visit):
    visitor = visit()
    page = visitor.page
    compose(visitor, "Evening air")
    visitor.wait("#compose-status", "Done.")
    page.locator("#compose-tools").get_by_label("Seconds to add").first.fill("2")
    step(visitor, "Branch")
    cards = page.locator("#compose-branches .fj-card")
    cards.locator("audio").nth(3).wait_for()
    tops = [cards.nth(index).bounding_box()["y"] for index in range(4)]
    assert len(set(tops)) == 1  # side by side
    assert not page.locator("#compose-tools").get_by_label("Lyrics").is_visible()  # the model does not sing
    visitor.picture("compose")
    cards.nth(2).get_by_role("button", name="Keep").click()
    visitor.wait("#compose-take h3", "Take 4")
    wave = page.locator("#compose-take .fj-wave").bounding_box()
    page.mouse.click(wave["x"] + 0.75 * wave["width"], wave["y"] + 20)
    page.get_by_role("tab", name="Cut").click()
    page.wait_for_function("document.querySelector('#compose-cut-at input').value === '3'")
    step(visitor, "Cut")
    visitor.wait("#compose-tree [aria-current]", "cut · 3.0 s · draft")
    page.get_by_role("tab", name="Finish").click()
    end = page.locator("#compose-tools").get_by_label("To (0 is its end)")
    end.wait_for()
    page.wait_for_timeout(800)  # fields of a tab that is opened first take their values a moment later
    end.fill("1")
    end.press("Tab")
    step(visitor, "Finish in full quality")
    page.locator("#compose-take").get_by_text("In full quality from 0.0 to 1.0 s").wait_for()
    end.fill("0")
    end.press("Tab")
    step(visitor, "Finish in full quality")
    visitor.wait("#compose-tree [aria-current]", "cut · 3.0 s · full")
    first = page.locator("#compose-tree button").first
    first.focus()
    first.press("Enter")
    visitor.wait("#compose-take h3", "Take 1")
    visitor.picture("compose-finished")


def test_a_song_is_found_again_by_its_browser_and_by_others_with_its_key(visit):
    ann, bob = visit(), visit()
    compose(ann, "Mine", 1)
    ann.wait("#compose-status", "Done.")
    ann.page.get_by_text("Open it in another browser").click()
    key = ann.page.locator("#compose-take code").inner_text()
    ann.open()
    ann.tab("Compose")
    ann.wait("#compose-tree", "Mine")
    bob.tab("Compose")
    assert bob.page.locator("#compose-tree").inner_text() == ""
    bob.page.get_by_text("Open by its key").click()
    bob.page.get_by_label("Key", exact=True).fill(key)
    bob.page.get_by_role("button", name="Open", exact=True).click()
    bob.wait("#compose-tree", "Mine")
    bob.page.get_by_label("Key", exact=True).fill("../" + key)
    bob.page.get_by_role("button", name="Open", exact=True).click()
    bob.wait("#compose-status [role=alert]", "no song of this key")


def begun(visitor, percent):
    visitor.page.wait_for_function(
        f"Number(document.querySelector('#compose-status [role=progressbar]')?.ariaValueNow) > {percent}"
    )


def test_a_server_that_is_killed_in_the_middle_of_a_song_goes_on_with_it(visit, served):
    server, serve_again = served
    visitor = visit(address=server.address)
    compose(visitor, "Interrupted", 20)
    begun(visitor, 3)
    server.kill()
    visitor.page.goto("about:blank")  # the page would load itself again, while it is opened, as soon as it is served
    serve_again()
    visitor.expected = ["Failed to load resource: net::ERR", "TypeError: network error", "Unexpected error Connec"]
    visitor.expected += ["AbortError: signal is aborted"]  # the page was left while it tried
    visitor.open()
    visitor.tab("Compose")
    visitor.wait("#compose-take", "1 take is not finished.")
    visitor.picture("interrupted")
    visitor.page.get_by_role("button", name="Go on", exact=True).click()
    begun(visitor, 10)
    visitor.wait("#compose-status", "Done.")
    visitor.wait("#compose-tree", "beginning · 20.0 s · draft")


def test_two_settings_are_heard_side_by_side_and_blind(visit):
    visitor = visit()
    page = visitor.page
    visitor.tab("Compare")
    page.get_by_label("Temperature of the top level").first.fill("0.7")
    panel = page.get_by_role("tabpanel").filter(has=page.locator("#compare-blind"))
    panel.get_by_label("Duration (seconds)").first.fill("1")
    panel.get_by_label("Pairs").first.fill("2")
    page.get_by_role("button", name="Side by side").click()
    visitor.wait("#compare-status", "Done.")
    assert page.locator("#compare-result audio").count() == 2
    page.get_by_role("button", name="Blind test").click()
    for pair in (1, 2):
        visitor.wait("#compare-status", f"Pair {pair} of 2")
        assert page.locator("#compare-result audio").count() == 3
        assert "temperature" not in page.locator("#compare-result").inner_text()
        if pair == 2:  # the browser finds the test again
            visitor.open()
            visitor.tab("Compare")
            visitor.wait("#compare-status", "Pair 2 of 2")
        page.get_by_label("X is A").check()
        page.get_by_label("neither").check()
        visitor.picture("compare")
        page.get_by_role("button", name="Answer").click()
    visitor.wait("#compare-status", "All pairs are answered.")
    visitor.picture("compare-outcome")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 3


def test_a_model_is_looked_into(visit):
    visitor = visit()
    page = visitor.page
    visitor.tab("Inside")
    visitor.wait("#inside-info caption", "Priors")
    page.get_by_text("The model's card").click()
    visitor.wait("#inside-card", "Picture: mel spectrograms")
    visitor.picture("inside")


@pytest.fixture
def singer(words_config, words_files):
    """The model of words at a rate that browsers play."""
    from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxProcessor

    parts = [words_config.vqvae_config, *words_config.prior_configs]
    vqvae, *priors = [part.to_dict() | {"sampling_rate": 8000} for part in parts]
    config = FastJukeboxConfig(vqvae_config=vqvae, prior_configs=priors)
    model = FastJukeboxModel(config).eval()
    model.processor = FastJukeboxProcessor.from_vocabulary_files(config, **words_files)
    return model


def test_a_song_is_estimated_and_words_are_seen_as_they_are_sung(visit, studio_of, singer, tiny_model):
    from fast_jukebox.demo import launch

    blocks, address = launch(studio_of(tiny=tiny_model, singer=singer), block=False)
    try:
        visitor = visit(address=address)
        page = visitor.page
        visitor.tab("Inside")
        page.get_by_role("button", name="Estimate").click()
        visitor.wait("#inside-status", "Measured.")
        visitor.wait("#inside-result caption", "Levels")
        panel = page.get_by_role("tabpanel").filter(has=page.locator("#inside-sing"))
        panel.get_by_label("Model", exact=True).nth(1).click()
        page.get_by_role("option", name="singer", exact=True).click()
        panel.get_by_label("Lyrics").fill("Where the wind blows, there I go")
        panel.get_by_label("Duration (seconds)").nth(2).fill("2")
        page.get_by_role("button", name="Sing", exact=True).click()
        visitor.wait("#sing-status", "Done.")
        page.locator("#sing-result audio").evaluate("player => { player.muted = true; return player.play(); }")
        page.wait_for_selector(".fj-sung")
        visitor.picture("singing")
        visitor.tab("Play")  # the fields follow the model
        page.get_by_label("Model", exact=True).first.click()
        page.get_by_role("option", name="singer", exact=True).click()
        page.get_by_label("Genre", exact=True).first.click()
        page.get_by_role("option", name="hymn", exact=True).wait_for()
        visitor.expected = ["Unexpected error Server stopped"]  # it is closed before the page
    finally:
        blocks.close(verbose=False)
