import pytest

from fast_jukebox.processing.vocabulary import FIELDS, check_song


def test_what_is_written_of_a_song():
    song = {"artist": "Ann", "genre": ["Pop", "Folk"], "lyrics": None, "total_duration": 60, "unknown": True}
    assert check_song(song) == {name: value for name, value in song.items() if name != "lyrics"}
    assert check_song({}) == {}
    assert set(song) | {"offset"} == set(FIELDS)


@pytest.mark.parametrize(
    ("song", "match"),
    [
        ("Ann", "`metadata` must be a dictionary"),
        ({"artists": "Ann"}, "got 'artists', did you mean `artist`"),
        ({"artist": 7}, "`artist` must be a text, got 7"),
        ({"lyrics": ["la"]}, "`lyrics` must be a text"),
        ({"genre": ["pop", 1]}, "`genre` must be a text or a list"),
        ({"unknown": "yes"}, "`unknown` must be True or False"),
        ({"total_duration": -1}, "`total_duration` must be seconds from 0"),
        ({"offset": float("nan")}, "`offset` must be seconds"),
        ({"offset": True}, "`offset` must be seconds"),
        ({"offset": 5, "total_duration": 5}, "`offset` must be below `total_duration`, 5 seconds, got 5"),
    ],
)
def test_what_cannot_be_written(song, match):
    with pytest.raises(ValueError, match=match):
        check_song(song)
