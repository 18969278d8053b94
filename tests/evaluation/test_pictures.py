import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.evaluation.controls import chord
from fast_jukebox.evaluation.pictures import (
    envelope,
    plot_levels,
    plot_notes,
    plot_waveforms,
)
from fast_jukebox.utils.figures import picture_path, require_matplotlib

RATE = 8000
pytest.importorskip("matplotlib")


def pixels(path):
    from matplotlib.image import imread

    return torch.from_numpy(imread(path))[..., :3].clone()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.integers(1, 60), st.integers(0, 99))
def test_an_envelope_holds_every_extreme(length, columns, seed):
    audio = torch.randn(length, generator=torch.Generator().manual_seed(seed))
    low, high = envelope(audio, columns)
    assert len(low) == len(high) == min(columns, length)
    assert float(low.min()) == float(audio.min())
    assert float(high.max()) == float(audio.max())
    assert (low <= high).all()


def test_a_title_may_hold_what_is_a_formula_elsewhere(tmp_path):
    assert plot_waveforms(tmp_path / "wave.png", {"$^$": torch.randn(100)}, RATE).stat().st_size > 1000


def test_a_single_peak_is_seen_where_it_is(tmp_path):
    audio = torch.zeros(5 * RATE)
    audio[2 * RATE] = 0.01
    path = plot_waveforms(tmp_path / "wave.png", {"a click": audio}, RATE)
    blue = (pixels(path) - torch.tensor([31, 78, 121]) / 255).abs().amax(dim=2) < 0.2
    rows = blue.any(dim=1).nonzero()[:, 0]
    assert len(rows) > 40  # normalised: the click reaches the top
    flat = int(blue.sum(dim=1).argmax())  # the line of silence
    columns = (blue.sum(dim=0) > 20).nonzero()[:, 0].float()
    line = blue[flat].nonzero()[:, 0].float()
    where = float((columns.mean() - line.min()) / (line.max() - line.min()))
    assert where == pytest.approx(0.4, abs=0.01)


def test_all_panels_share_one_colour_scale(tmp_path):
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    together = plot_levels(tmp_path / "both.png", {"loud": {"": tone}, "soft": {"": 1e-3 * tone}}, RATE)
    shown = pixels(together)
    half = shown.shape[0] // 2
    bright = [float(part[:, : shown.shape[1] * 3 // 4].amin(dim=2).amin()) for part in (shown[:half], shown[half:])]
    assert bright  # drawn at all
    warm = [
        (part[:, : shown.shape[1] * 3 // 4, 0] - part[:, : shown.shape[1] * 3 // 4, 2] > 0.3).sum()
        for part in (shown[:half], shown[half:])
    ]
    assert warm[0] > 0
    assert warm[1] == 0  # 60 dB below: dark, where a scale of its own would make it as bright


def test_cells_that_are_lacking_stay_empty_and_svg_has_the_titles(tmp_path):
    sound = torch.randn(RATE)
    path = plot_levels(
        tmp_path / "levels.svg",
        {"songs": {"upsampled": sound}, "teacher": {"top level alone": sound, "upsampled": sound}},
        RATE,
    )
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"<!-- (.*?) -->", text)
    assert [title for title in titles if title.startswith(("songs", "teacher"))] == [
        "songs", "teacher: top level alone", "teacher: upsampled",
    ]  # fmt: skip
    x = re.findall(r'<image [^>]*?x="([\d.]+)"', text)
    assert float(x[0]) == float(x[2]) > float(x[1])  # "upsampled" stands right of "top level alone", songs' own too
    assert text.startswith("<?xml")
    again = plot_levels(
        tmp_path / "again.svg",
        {"songs": {"upsampled": sound}, "teacher": {"top level alone": sound, "upsampled": sound}},
        RATE,
    )
    assert again.read_text(encoding="utf-8") == text
    assert len(re.findall(r"<image", text)) == 4  # three panels and the colour bar


def test_silence_and_short_clips_are_drawn(tmp_path):
    clips = {"silence": torch.zeros(RATE), "one sample": torch.ones(1)}
    assert plot_waveforms(tmp_path / "a.png", clips, RATE).read_bytes().startswith(b"\x89PNG")
    assert plot_levels(tmp_path / "b.png", {"x": clips}, RATE).read_bytes().startswith(b"\x89PNG")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("audio", [torch.tensor([0.0, float("nan")]), torch.zeros(0), torch.zeros(1, 5)])
def test_what_cannot_be_drawn_is_refused(tmp_path, audio):
    for plot, argument in ((plot_waveforms, {"bad": audio}), (plot_levels, {"bad": {"all": audio}})):
        with pytest.raises(ValueError, match="'bad.*' must be finite sound"):
            plot(tmp_path / "a.png", argument, RATE)
    with pytest.raises(ValueError, match="at least one clip"):
        plot_waveforms(tmp_path / "a.png", {}, RATE)


def test_the_suffix_says_the_format(tmp_path):
    assert picture_path("a/b.SVG").name == "b.SVG"
    with pytest.raises(ValueError, match=r"must end in .png or .svg, got 'a.jpg'"):
        require_matplotlib(["a.jpg"])
    with pytest.raises(ValueError, match=r"must end in"):
        plot_waveforms(tmp_path / "a.gif", {"x": torch.zeros(5)}, RATE)


def test_notes_are_drawn_at_their_pitch_and_silence_is_shaded(tmp_path):
    low, high = chord([48], 2 * RATE, RATE), chord([72], 2 * RATE, RATE)
    clips = {"up": torch.cat([low, torch.zeros(2 * RATE), high])}
    picture = pixels(plot_notes(tmp_path / "notes.png", clips, RATE, seconds=6.0))
    height, width, _ = picture.shape
    blue = (picture - torch.tensor([31, 78, 121]) / 255).abs().amax(dim=2) < 0.12
    gray = (picture - 0xDD / 255).abs().amax(dim=2) < 0.01
    first, second = (
        blue[:, half].nonzero()[:, 0].float().mean() for half in (slice(0, width // 2), slice(width // 2, None))
    )
    assert first - second > height / 4  # the second note stands higher
    shaded = gray.any(dim=0).nonzero()[:, 0].float()
    assert float(shaded.mean()) == pytest.approx(width / 2, rel=0.1)


def test_a_clip_without_notes_is_drawn_and_a_short_one_is_refused(tmp_path):
    assert plot_notes(tmp_path / "silence.svg", {"silence": torch.zeros(RATE)}, RATE).stat().st_size > 1000
    with pytest.raises(ValueError, match="audio"):
        plot_notes(tmp_path / "short.svg", {"short": torch.zeros(10)}, RATE)
