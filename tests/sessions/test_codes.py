import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fast_jukebox.generation.levels import LevelCodes
from fast_jukebox.generation.windows import Layout
from fast_jukebox.sessions.codes import PartLayout, made_from_start, part_layouts, read_span
from fast_jukebox.sessions.store import SessionError

layouts = st.builds(
    lambda length, size, hop, given, parallel: Layout(
        0, length, size, min(hop, size), min(given, length), parallel=parallel
    ),
    st.integers(1, 80),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 30),
    st.booleans(),
)


def sampled(layout, seed):
    """Codes of each window, as a level that has no level above might have them, and the given ones."""
    chance = torch.Generator().manual_seed(seed)
    pieces = {
        window.end: torch.randint(3, (window.new_length,), generator=chance).numpy() for window in layout.windows()
    }
    return torch.randint(3, (layout.given,), generator=chance).numpy(), pieces


def replayed(layout, given, pieces):
    own = LevelCodes(1, torch.from_numpy(given)[None], layout, torch.device("cpu"))
    for window in layout.windows():
        prompt = own.read(window.start, window.new_start)
        own.place(window, torch.cat([prompt, torch.from_numpy(pieces[window.end])[None]], dim=1), slice(0, 1))
    return own.codes[0].numpy()


@given(layouts, st.integers(0, 79), st.integers(1, 80), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_a_part_of_the_windows_gives_the_codes_of_all(layout, first, last, seed):
    first, last = min(first, layout.length - 1), min(last, layout.length)
    assume(first < last)
    given, pieces = sampled(layout, seed)
    whole = replayed(layout, given, pieces)
    needed = {window.end for window in PartLayout.of(layout, first, last).windows()}
    part = {end: pieces[end] for end in needed}
    assert read_span(layout, given, part, first, last).tolist() == whole[first:last].tolist()
    if needed:
        del part[max(needed)]
        assert read_span(layout, given, part, first, last) is None


@given(layouts, st.integers(0, 20), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_what_is_made_from_the_start_does_not_change(layout, done, seed):
    given, pieces = sampled(layout, seed)
    some = dict(list(pieces.items())[:done])
    made = made_from_start(layout, some)
    assert made >= layout.given
    assert read_span(layout, given, some, 0, made).tolist() == replayed(layout, given, pieces)[:made].tolist()
    assert made_from_start(layout, pieces) == layout.length


def test_upper_levels_are_made_under_whole_windows():
    layouts = [Layout(0, 80, 16, 12, parallel=True), Layout(1, 20, 8, 6, parallel=True), Layout(2, 5, 4, 1)]
    bottom, middle, top = part_layouts(layouts, 0, 40, 42)
    starts = [window.start for window in bottom.windows()]
    assert starts == [36] or starts == [24, 36]
    assert middle.first <= starts[0] // 4 and middle.last >= 52 // 4
    assert top.last == 5
    assert part_layouts(layouts, 1, 0, 4)[0] is None


@pytest.fixture
def session(stub_model, tmp_path):
    session = stub_model.new_session(tmp_path / "song", duration=2.0, seed=1)
    session.run()
    return session


def test_siblings_share_the_file_that_they_begin_with(session):
    first, second = session.branch(2, 0.4)
    assert first.given == second.given
    assert len(list(session.folder.glob("codes/given-*"))) == 1
    assert first.known == (100, 50, 25)


def test_the_file_of_a_top_level_tells_the_song_alone(session):
    (take,) = session.branch(1, 0.4)
    session.run()
    codes = load_file(session.folder / "codes" / f"take-{take.number:04}-level-2.safetensors")["codes"]
    assert torch.equal(codes.long(), session.codes(take)[2][0])


def test_codes_that_are_none_are_refused(session):
    codes, take = session._codes, session.kept
    pieces = codes.window_codes(take, 0)
    codes.write_window_codes(take, 0, {number: piece + 10 for number, piece in pieces.items()})
    with pytest.raises(SessionError, match="from 0 to 10"):
        session.codes()


def test_codes_of_another_codebook_are_refused(session):
    tensors, facts = session._store.read_codes("take-0001-level-2")
    session._store.write_codes("take-0001-level-2", tensors, {**facts, "vqvae": "0" * 32})
    with pytest.raises(SessionError, match="another model's codebook"):
        session.codes()


def test_files_of_another_take_are_refused(session):
    session.extend(3.0)
    session.run()
    for name, other in (("take-0002-level-2", "take-0001-level-2"), ("take-0001-level-0", "take-0001-level-1")):
        session._store.write_codes(name, *session._store.read_codes(other))
        with pytest.raises(SessionError, match="does not belong"):
            session.codes(int(name[5:9]))


def test_codes_of_another_sessions_take_are_refused(session, tmp_path, stub_model):
    other = stub_model.new_session(tmp_path / "other", duration=2.0, seed=77)
    other.run()
    for level in (2, 0):
        name = f"codes/take-0001-level-{level}.safetensors"
        own = (session.folder / name).read_bytes()
        (session.folder / name).write_bytes((other.folder / name).read_bytes())
        with pytest.raises(SessionError, match=f"take-0001-level-{level}.*does not belong to take 1.*; delete it"):
            session.codes()
        (session.folder / name).write_bytes(own)
    session.codes()


def test_a_past_of_another_shape_is_refused(session):
    take = session.cut(1.0)
    tensors, facts = session._store.read_codes(take.given)
    session._store.write_codes(take.given, {name: own.reshape(-1, 1) for name, own in tensors.items()}, facts)
    with pytest.raises(SessionError, match="given-.*does not belong to take 2.*; .*bring it back"):
        session.codes(2)


def test_a_past_that_is_lost(session):
    take = session.cut(1.0)
    (session.folder / "codes" / f"{take.given}.safetensors").unlink()
    with pytest.raises(SessionError, match="lost what take 2 begins with"):
        session.codes()


def test_a_lost_file_is_sampled_again(session):
    expected = session.codes()
    for path in session.folder.glob("codes/take-*"):
        path.unlink()
    assert session.fractions() == [0, 0, 0]
    session.request()
    session.run()
    for own, codes in zip(session.codes(), expected, strict=True):
        assert torch.equal(own, codes)


def test_codes_are_exported_for_other_programs(session, tmp_path, stub_model):
    path = session.export(tmp_path / "codes.safetensors")
    found = load_file(path)
    for level, codes in enumerate(session.codes()):
        assert torch.equal(found[f"level_{level}"], codes)
    empty = stub_model.new_session(tmp_path / "empty", duration=1.0)
    with pytest.raises(ValueError, match="no level"):
        empty.export(tmp_path / "none.safetensors")
