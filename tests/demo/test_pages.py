"""The pages in a real browser, used as a person would."""

import soundfile

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def choose(page, field, name):
    page.get_by_label(field, exact=True).first.click()
    page.get_by_role("option", name=name, exact=True).click()


def play(visitor, seconds):
    visitor.page.get_by_label("Duration (seconds)").first.fill(str(seconds))
    visitor.page.get_by_role("button", name="Play", exact=True).click()


def test_a_song_is_heard_while_it_is_made_and_can_be_kept(visit):
    visitor = visit()
    page = visitor.page
    choose(page, "Genre", "jig")
    choose(page, "Artist or instrument", "fiddle")
    play(visitor, 5)
    page.wait_for_function("fastJukebox.live && fastJukebox.live.firstSound !== null")
    assert page.evaluate("fastJukebox.live.played") < 5  # heard before it is done
    visitor.wait("#play-status", "left")
    visitor.picture("play-working")
    visitor.wait("#play-status", "Done.")
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


def test_a_phone_in_the_dark_by_keyboard(visit):
    visitor = visit(**PHONE, color_scheme="dark")
    page = visitor.page
    assert page.evaluate("document.body.classList.contains('dark')")
    page.get_by_role("button", name="Play", exact=True).focus()
    page.get_by_label("Duration (seconds)").first.fill("1")
    page.get_by_role("button", name="Play", exact=True).press("Enter")
    visitor.wait("#play-status", "Done.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, audio, input, select, textarea')].filter(each => each.offsetParent && "
        "!(each.innerText || each.ariaLabel || each.title || (each.labels && each.labels.length)))"
        ".map(each => each.outerHTML)"
    )
    assert not unnamed
    visitor.picture("phone-dark")
