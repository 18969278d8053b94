import json
import shutil
from pathlib import Path

import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox.data.valence import (
    ValenceClips,
    ValenceSong,
    crop_slices,
    hide,
    load_tag_map,
    load_valence_songs,
    shared_groups,
)
from fast_jukebox.models.valence import QUADRANTS, ValenceFeatureExtractor

HEAD = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"


def sound(path, seconds=1.2, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_audio(path, (0.1 * torch.randn(round(seconds * rate))).clamp(-1, 1), rate)


def row(number, artist, *tags):
    marked = "\t".join(f"mood/theme---{tag}" for tag in tags)
    return f"track_{number:07}\tartist_{artist:06}\talbum_1\t{number:02}/{number}.wav\t1.2\t{marked}\n"


@pytest.fixture
def jamendo(tmp_path):
    rows = {
        "train": [row(1, 1, "happy", "film"), row(2, 1, "sad"), row(3, 2, "happy", "sad"), row(4, 2, "film")],
        "validation": [row(5, 3, "calm")],
        "test": [row(6, 4, "epic"), row(7, 4, "dream"), row(8, 1, "dark")],
    }
    for split, lines in rows.items():
        (tmp_path / f"autotagging_moodtheme-{split}.tsv").write_text(HEAD + "".join(lines), encoding="utf-8")
    for number in (1, 2, 3, 4, 5, 6, 8):
        sound(tmp_path / f"{number:02}/{number}.wav")
    return tmp_path


def test_the_map_is_marked_as_ours_and_has_every_tag_once(tmp_path):
    tags = load_tag_map()
    assert (tags["happy"], tags["calm"], tags["epic"], tags["sad"]) == (0, 1, 2, 3)
    from fast_jukebox.data.valence import TAG_MAP

    assert "This map is ours" in TAG_MAP.read_text(encoding="utf-8")
    (tmp_path / "twice.yaml").write_text("AP: [a]\nDP: [a]\nAU: []\nDU: []\n")
    (tmp_path / "three.yaml").write_text("AP: [a]\n")
    with pytest.raises(ValueError, match="must name each tag once"):
        load_tag_map(tmp_path / "twice.yaml")
    with pytest.raises(ValueError, match="must have the keys AP, DP, AU, DU"):
        load_tag_map(tmp_path / "three.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AP: [", "must be YAML"),
        ("AP: \xe9", "must be YAML in UTF-8"),
        ("[" * 10_000, "must be YAML"),
        ("AP: 3\nDP: []\nAU: []\nDU: []\n", "as text, got a int under AP"),
        ("AP: {a: b}\nDP: []\nAU: []\nDU: []\n", "as text, got a dict under AP"),
    ],
)
def test_a_map_that_is_none_is_named(tmp_path, text, message):
    (tmp_path / "tags.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"tags.yaml {message}|tags.yaml .*{message}"):
        load_tag_map(tmp_path / "tags.yaml")


def test_jamendos_layout_gives_songs_of_exactly_one_quadrant_whose_file_is_there(jamendo, tmp_path):
    songs = load_valence_songs(jamendo)
    found = [(int(song.source.stem), QUADRANTS[song.quadrant], song.group, song.split) for song in songs]
    assert found == [
        (1, "AP", "artist_000001", "train"),
        (2, "DU", "artist_000001", "train"),
        (5, "DP", "artist_000003", "validation"),
        (6, "AU", "artist_000004", "test"),
        (8, "DU", "artist_000001", "test"),
    ]
    assert shared_groups(songs) == {"artist_000001"}
    own = tmp_path / "map.yaml"
    own.write_text("AP: [film]\nDP: [calm]\nAU: [epic]\nDU: []\n")
    assert [song.quadrant for song in load_valence_songs(jamendo, tag_map=own)] == [0, 0, 1, 2]


def test_songs_whose_file_is_not_what_the_table_states_are_named_and_left_out(jamendo, caplog):
    sound(jamendo / "06" / "6.wav", seconds=3)
    (jamendo / "08" / "8.wav").write_bytes((jamendo / "08" / "8.wav").read_bytes()[:9000])
    save_audio(jamendo / "02" / "2.wav", torch.zeros(9600), 8000)
    sound(jamendo / "07" / "7.wav")
    (jamendo / "05" / "5.wav").unlink()
    songs = load_valence_songs(jamendo)
    assert [(song.source.name, song.split) for song in songs] == [("1.wav", "train"), ("7.wav", "test")]
    said = [line.split(": ", 1)[1] for line in caplog.messages]
    assert "skipped 06/6.wav: lasts 3 s, where autotagging_moodtheme-test.tsv states 1.2 s: fetch it again" in said
    assert "skipped 05/5.wav: is named in autotagging_moodtheme-validation.tsv but is not there" in said
    assert any(line.startswith("skipped 08/8.wav: is cut off") for line in said)
    assert any(line.startswith("skipped 02/2.wav: is silent") for line in said)
    assert len(said) == 4
    (jamendo / "07" / "7.wav").unlink()
    with pytest.raises(ValueError, match="must hold songs with a valence to train on and to hold out"):
        load_valence_songs(jamendo)


def test_paths_that_lead_out_of_the_folder_and_broken_rows_are_refused(jamendo):
    table = jamendo / "autotagging_moodtheme-train.tsv"
    table.write_text(HEAD + "t\ta\tb\t../../etc/passwd\t1\tmood/theme---happy\n")
    with pytest.raises(ValueError, match=r"line 2: '../../etc/passwd' leads out of the folder"):
        load_valence_songs(jamendo)
    table.write_text(HEAD + "t\ta\n")
    with pytest.raises(ValueError, match="line 2: must have at least 6 columns, got 2"):
        load_valence_songs(jamendo)
    table.write_text(HEAD + "t\ta\tb\t01/1.wav\t3:20\tmood/theme---happy\n")
    with pytest.raises(ValueError, match="line 2: the fifth column must be seconds, got '3:20'"):
        load_valence_songs(jamendo)
    (jamendo / "autotagging_moodtheme-test.tsv").unlink()
    table.write_text(HEAD)
    with pytest.raises(ValueError, match=r"test.tsv is missing"):
        load_valence_songs(jamendo)


@pytest.fixture
def folder(tmp_path):
    rows = []
    for number in range(16):
        name = f"{number}.wav"
        sound(tmp_path / name)
        instrument = ["piano", "organ", "choir", "strings"][number // 4]
        rows.append({"file_name": name, "valence": QUADRANTS[number % 4], "instruments": [instrument]})
    rows[3]["valence"] = None
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_metadata_gives_songs_with_whole_groups_held_out(folder):
    songs = load_valence_songs(folder, group_by="instruments", test_groups=["choir"])
    assert len(songs) == 15
    assert {song.group for song in songs if song.split == "test"} == {"choir"}
    assert not shared_groups(songs)
    assert {song.split for song in songs} == {"train", "validation", "test"}
    by_name = load_valence_songs(folder, group_by="instruments")
    assert len({song.group for song in by_name if song.split == "test"}) == 1
    assert by_name == load_valence_songs(folder, group_by="instruments")


def test_the_same_songs_are_for_validation_wherever_the_folder_lies(folder, tmp_path_factory):
    splits = []
    for place in (folder, tmp_path_factory.mktemp("elsewhere") / "songs"):
        if place != folder:
            shutil.copytree(folder, place)
        songs = load_valence_songs(place, group_by="instruments", test_groups=["choir"])
        splits.append({Path(song.source).name: song.split for song in songs})
    assert splits[0] == splits[1] and "validation" in splits[0].values()


def test_columns_groups_and_labels_that_are_not_there_are_named(folder):
    with pytest.raises(ValueError, match="must have the column `artist`"):
        load_valence_songs(folder)
    with pytest.raises(ValueError, match="`test_groups` must be among .*, got tuba"):
        load_valence_songs(folder, group_by="instruments", test_groups=["tuba"])
    text = (folder / "metadata.jsonl").read_text().replace('"AP"', '"happy"')
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(ValueError, match="`valence` must be one of AP, DP, AU, DU, got 'happy'"):
        load_valence_songs(folder, group_by="instruments")


def test_evaluation_takes_the_middle_and_training_other_stretches(folder):
    songs = [ValenceSong(folder / "0.wav", 2, "x", "train")]
    extractor = ValenceFeatureExtractor(num_frames=16)
    held_out = ValenceClips(songs, extractor)
    frames = held_out.frames(0).float()
    start = (frames.shape[1] - 16) // 2
    assert torch.equal(held_out[0]["input_features"], frames[:, start : start + 16])
    assert held_out[0]["labels"].tolist() == [0, 0, 1, 0]
    training = ValenceClips(songs, extractor, seed=0, cache_bytes=0)
    clips = []
    for epoch in range(6):
        training.set_epoch(epoch)
        clips.append(training[0]["input_features"])
        assert torch.equal(training[0]["input_features"], clips[-1])
    assert len({tuple(clip.flatten().tolist()) for clip in clips}) > 1
    with pytest.raises(ValueError, match="at least one song"):
        ValenceClips([], extractor)


def test_masks_hide_a_part_in_half_of_the_clips():
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(96, 200)
    changed = [(hide(clip, generator) != clip).float().mean() for _ in range(100)]
    fractions = torch.stack(changed)
    assert 30 < int((fractions == 0).sum()) < 70
    assert float(fractions.max()) < 2 * (0.15 + 0.2) + 0.05


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(96, 256), (96, 600), (32, 32), (8, 300), (64, 1)])
def test_crops_keep_the_shape_and_the_range_of_values_and_go_by_the_seed(shape):
    clip = torch.randn(shape, generator=generator(0))
    for seed in range(20):
        found = crop_slices(clip, 256, 1.0, generator(seed))
        assert found.shape == clip.shape
        assert clip.min() <= found.min()
        assert found.max() <= clip.max()
        assert torch.equal(found, crop_slices(clip, 256, 1.0, generator(seed)))
    assert crop_slices(clip, 256, 0.0, generator(0)) is clip


def test_a_third_of_the_slices_is_cropped_each_by_itself():
    clip = torch.randn(96, 256 * 300, generator=generator(0))
    found = crop_slices(clip, 256, 0.33, generator(1))
    same = (found == clip).all(dim=0).view(300, 256).float().mean(dim=1)
    assert ((same == 1) | (same < 0.05)).all()  # a slice is changed as a whole or not at all
    assert 0.25 < float((same < 1).float().mean()) < 0.41


def test_a_crop_covers_most_of_a_slice_and_has_the_recipes_ratio():
    bands, frames = 96, 256
    places = torch.stack(torch.meshgrid(torch.arange(bands), torch.arange(frames), indexing="ij")).float()
    starts = set()
    for seed in range(100):
        rows, columns = (crop_slices(axis, frames, 1.0, generator(seed)) for axis in places)
        height, width = float(rows.max() - rows.min()) + 1, float(columns.max() - columns.min()) + 1
        assert 0.79 < height * width / (bands * frames) <= 1
        assert 1.67 < width / height < 2.34
        starts.add(round(float(columns.min())))
    assert len(starts) > 10


def test_crops_are_of_training_alone(folder):
    songs, extractor = load_valence_songs(folder, group_by="instruments"), ValenceFeatureExtractor(num_frames=64)

    def clip(seed, probability):
        found = ValenceClips(songs, extractor, seed=seed, crop_probability=probability, slice_frames=32)
        return found[0]["input_features"]

    assert torch.equal(clip(None, 1.0), clip(None, 0.0))
    assert torch.equal(clip(3, 1.0), clip(3, 1.0))
    assert not torch.equal(clip(3, 1.0), clip(3, 0.0))
    with pytest.raises(ValueError, match=r"`crop_probability` must be in \[0, 1\], got 1.5"):
        clip(3, 1.5)
    with pytest.raises(ValueError, match="`slice_frames` must be at least 1, got 0"):
        ValenceClips(songs, extractor, slice_frames=0)


def test_a_map_of_tags_is_no_pipe(pipe):
    with pytest.raises(OSError, match="no regular file"):
        load_tag_map(pipe)
