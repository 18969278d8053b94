import json
import textwrap
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.windows import SETTINGS
from fast_jukebox.sampling.progress import GenerationCancelled
from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import SessionError

quick = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def fresh(folder):
    """A folder that is not there yet, as hypothesis runs a test several times in one `tmp_path`."""
    return folder / str(len(list(folder.iterdir())))


def files_of(session):
    return {path.name: path.read_bytes() for path in (session.folder / "codes").iterdir()}


class TestWaysToPlay:
    @given(
        st.sampled_from(["parallel", "sequential"]),
        st.integers(1, 250),
        st.integers(1, 3),
        st.sampled_from([None, 1, 2]),
    )
    @quick
    def test_from_nothing(self, stub_model, tmp_path, schedule, samples, songs, most):
        arguments = {"duration": samples / 100, "num_samples": songs, "seed": 3, "schedule": schedule}
        session = stub_model.new_session(fresh(tmp_path), **arguments)
        session.run(max_batch_size=most)
        whole = stub_model.generate(**arguments)
        for number, take in enumerate(session.takes):
            same(session.codes(take), [codes[number : number + 1] for codes in whole.codes])
            same(session.audio(take), whole.audio[number])
            assert session.fractions(take) == [1, 1, 1]

    def test_primed_with_a_recording(self, stub_model, tmp_path):
        prompt = torch.rand(90, generator=torch.Generator().manual_seed(1)) / 10
        arguments = {"duration": 2.0, "prompt": prompt, "prompt_duration": 0.5, "seed": 1}
        session = stub_model.new_session(tmp_path / "song", **arguments)
        session.run()
        whole = stub_model.generate(**arguments)
        same(session.codes(), whole.codes)
        assert session.kept.origin == "recording"
        session = Session.open(tmp_path / "song", stub_model)
        same(session.audio(), whole.audio[0])
        same(session.audio()[:45], prompt[:45])  # 48 samples are kept; their last 30 ms, 3, fade
        same(session.audio(start=0.2, end=0.6), whole.audio[0, 20:60])
        begun = session.cut(0.32)
        same(session.audio(begun), prompt[:32])
        (child,) = session.branch(1, 0.4, begun)
        session.run()
        same(session.audio(child)[:29], prompt[:29])
        same(session.audio(child)[32:], stub_model.vqvae.decode([session.codes(child)[2]], 2)[0, 32:])
        longer = session.extend(3.0, 1, stop_level=0)
        session.run()
        same(session.audio(longer)[:45], prompt[:45])

    def test_a_lost_recording_is_named(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=1.0, prompt=torch.rand(50) / 10, seed=1)
        session.run()
        path = session.folder / "codes" / f"{session.kept.recording}.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-8])
        with pytest.raises(SessionError, match="recording-.* is damaged"):
            session.audio()
        path.write_bytes(content + bytes(10**6))
        with pytest.raises(SessionError, match="recording-.* bytes, and what belongs there at most"):
            session.audio()
        path.unlink()
        with pytest.raises(SessionError, match="lost the recording of take 1"):
            session.audio()

    def test_songs_with_a_recording_each(self, stub_model, tmp_path):
        prompt = torch.rand(2, 60) / 10
        session = stub_model.new_session(tmp_path / "song", duration=1.0, prompt=prompt, seed=1)
        session.run()
        whole = stub_model.generate(duration=1.0, prompt=prompt, seed=1)
        for number in (1, 2):
            same(session.audio(number), whole.audio[number - 1])

    def test_from_codes_of_a_file_on_another_machine(self, stub_model, tmp_path):
        draft = stub_model.new_session(tmp_path / "draft", duration=2.0, seed=1, stop_level=2)
        draft.run()
        top = draft.codes()[2]
        session = stub_model.new_session(tmp_path / "song", codes=[None, None, top], seed=5)
        session.run()
        same(session.codes(), stub_model.generate(codes=[top], seed=5).codes)

    def test_one_level_after_the_other_in_other_processes(self, stub_model, tmp_path):
        stub_model.new_session(tmp_path / "song", duration=2.0, seed=1, stop_level=2).run()
        for level in (1, 0):
            session = Session.open(tmp_path / "song", stub_model)
            assert session.codes()[level] is None
            session.upsample(stop_level=level)
        same(session.codes(), stub_model.generate(duration=2.0, seed=1).codes)

    def test_a_draft_is_listened_to(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=2.0, seed=1, stop_level=2)
        with pytest.raises(ValueError, match="no sound"):
            session.audio()
        session.run()
        same(session.audio(), stub_model.generate(duration=2.0, seed=1, stop_level=2).audio[0])
        with pytest.raises(ValueError, match="bottom level"):
            session.audio(level=0)

    def test_settings_of_the_model_are_remembered(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=1.0, seed=1, top_k=[1, 2, 3])
        assert set(session.kept.settings) == set(SETTINGS)
        session.run()
        same(session.codes(), stub_model.generate(duration=1.0, seed=1, top_k=[1, 2, 3]).codes)

    def test_what_cannot_be_is_refused_before_there_is_a_folder(self, stub_model, tmp_path):
        for arguments in ({"duration": -1.0}, {"stop_level": 3}, {"seed": -1}, {"temperature": 0}):
            with pytest.raises(ValueError, match=next(iter(arguments))):
                stub_model.new_session(tmp_path / "song", **arguments)
        with pytest.raises(TypeError, match="'duratoin'"):
            stub_model.new_session(tmp_path / "song", duratoin=1.0)
        for name, value in (("engine", "eager"), ("max_batch_size", 2), ("start_level", 2), ("progress", print)):
            with pytest.raises(ValueError, match=f"`{name}` is no argument of a new session"):
                Session.create(tmp_path / "song", stub_model, SongRequest(**{name: value}))
        assert not (tmp_path / "song").exists()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "letter").touch()
        with pytest.raises(ValueError, match="folder"):
            stub_model.new_session(tmp_path / "full", duration=1.0)


class TestComposing:
    @pytest.fixture
    def session(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=1.2, seed=7, stop_level=2)
        session.run()
        return session

    def test_candidates_share_a_past_and_differ_after_it(self, session, stub_model):
        past = session.codes()[2]
        takes = session.branch(3, 0.4)
        session.run()
        codes = [session.codes(take)[2] for take in takes]
        for own in codes:
            assert own.shape == (1, 20)
            same(own[:, :15], past)
        assert len({tuple(own[0].tolist()) for own in codes}) == 3
        again = session.branch(1, 0.4)[0]
        assert again.seed not in [take.seed for take in takes]

    def test_a_candidate_is_what_generate_makes(self, session, stub_model):
        past = session.codes()[2]
        session.branch(3, 0.4, temperature=0.7)
        session.run()
        take = session.keep(3)
        session.upsample()
        whole = stub_model.generate(duration=1.6, codes=[past], seed=[take.seed], song_ids=[take.song], temperature=0.7)
        same(session.codes(), whole.codes)

    def test_the_same_session_has_the_same_candidates(self, stub_model, tmp_path):
        seeds = []
        for name in "ab":
            session = stub_model.new_session(tmp_path / name, duration=0.4, seed=7, stop_level=2)
            session.run()
            seeds.append([take.seed for take in session.branch(3, 0.4)])
        assert seeds[0] == seeds[1]

    def test_cut_and_extend_begin_with_all_that_is_made(self, session, stub_model):
        session.upsample()
        before = session.codes()
        cut = session.cut(0.8)
        assert session.kept == cut
        same(session.codes(), [own[:, : own.shape[1] * 2 // 3] for own in before])
        session.extend(1.5, stop_level=0)
        session.run()
        given = [own[:, : own.shape[1] * 2 // 3] for own in before]
        same(session.codes(), stub_model.generate(duration=1.5, codes=given, seed=[7], song_ids=[0]).codes)
        assert [take.parent for take in session.takes.values()] == [None, 1, 2]

    def test_takes_never_change(self, session):
        session.upsample(1)
        takes, files = dict(session.takes), files_of(session)
        session.branch(2, 0.4, take=1)
        session.cut(0.4, take=1)
        session.extend(2.0, take=1, stop_level=0)
        session.run()
        session.keep(2)
        session.upsample()
        for number, take in takes.items():
            assert Session.open(session.folder).takes[number] == take
        now = files_of(session)
        assert {name: now[name] for name in files} == files

    @given(
        st.sampled_from(["parallel", "sequential"]),
        st.integers(0, 299),
        st.integers(1, 120),
        st.integers(0, 1),
        st.sampled_from([None, 0.3, 0.6]),
    )
    @quick
    def test_a_part_is_what_the_whole_has_there(self, stub_model, tmp_path, schedule, start, length, level, hops):
        arguments = {"duration": 3.0, "seed": 4, "schedule": schedule, "hop_fractions": hops}
        end = min(start + length, 300)
        session = stub_model.new_session(fresh(tmp_path), **arguments, stop_level=2)
        session.run()
        session.upsample(start=start / 100, end=end / 100, stop_level=level)
        whole = stub_model.generate(**arguments, stop_level=level)
        same(session.audio(level=level, start=start / 100, end=end / 100), whole.audio[0, start:end])
        session.upsample(stop_level=level)
        same(session.codes()[level:], whole.codes[level:])

    def test_a_part_does_less_work(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=6.0, seed=4, stop_level=2)
        session.run()
        session.upsample(start=3.0, end=3.2)
        assert max(session.fractions()[:2]) < 0.5

    def test_what_is_told_changes_where_the_take_says(self, stub_labelled_model, tmp_path):
        def labels(artist):
            return torch.tensor([[0, 0, 0, artist, 1]])

        session = stub_labelled_model.new_session(
            tmp_path / "song", duration=1.6, seed=1, stop_level=2, metadata=labels(3)
        )
        session.run()
        session.branch(1, 1.6, metadata=labels(5))
        session.run()
        session.keep(2)
        for prior in stub_labelled_model.priors:
            prior.calls.clear()
        session.upsample()
        sampled = [call for call in stub_labelled_model.priors[0].calls if call.steps]  # not what was checked before
        told = [(int(row[1]), int(row[3])) for call in sampled for row in call.metadata]
        assert {artist for offset, artist in told if offset < 130} == {3}
        assert {artist for offset, artist in told if offset >= 150} == {5}

    def test_what_the_model_refuses_makes_no_take(self, session):
        for told in ({"metadata": {"artist": "A"}}, {"metadata": torch.zeros(1, 5, dtype=torch.int64)}, {"top_k": [1]}):
            with pytest.raises(ValueError, match=next(iter(told))):
                session.branch(2, 0.4, **told)
        assert list(Session.open(session.folder).takes) == [1]
        session.run()

    def test_what_was_asked_for_can_be_forgotten(self, session):
        session.branch(2, 0.4)
        session.forget()
        session.run()
        assert session.fractions(2)[2] < 1

    def test_words_that_are_not_said_again_stay(self, session):
        session = Session.open(session.folder)  # no model is asked
        first = session.branch(1, 0.4, metadata={"artist": "A", "genre": "G"})[0]
        assert first.metadata == {"words": {"artist": "A", "genre": "G"}}
        assert [segment.start for segment in first.segments] == [0, 15]

    def test_the_tree_is_drawn(self, session):
        session.branch(2, 0.4)
        session.run()
        session.keep(3)
        session.cut(0.8)
        session.keep(3)
        lines = session.tree().splitlines()
        assert lines[0].startswith("take 1: new, 1.2 s, seed 7; top done")
        assert lines[1].startswith("├─ take 2: branch, 1.6 s")
        assert lines[2].startswith("└─ take 3: branch, 1.6 s") and lines[2].endswith("<- kept")
        assert lines[3].startswith("   └─ take 4: cut, 0.8 s")

    def test_bad_requests_are_refused_by_name(self, session):
        for call, name in (
            (lambda: session.branch(0, 1.0), "count"),
            (lambda: session.branch(1, 0), "seconds"),
            (lambda: session.branch(1, 1e9), "seconds"),
            (lambda: session.branch(1, 1.0, take=9), "take"),
            (lambda: session.branch(1, 1.0, temperature=0), "temperature"),
            (lambda: session.branch(1, 1.0, tempo=3), "tempo"),
            (lambda: session.branch(1, 1.0, stop_level=5), "stop_level"),
            (lambda: session.branch(1, 1.0, metadata=3), "metadata"),
            (lambda: session.extend(1.0), "duration"),
            (lambda: session.cut(1.3), "seconds"),
            (lambda: session.keep(2), "take"),
            (lambda: session.upsample(start=1.0, end=0.5), "start"),
            (lambda: session.upsample(end=1.3), "end"),
            (lambda: session.upsample(stop_level=3), "stop_level"),
            (lambda: session.audio(level=7), "level"),
            (lambda: session.export("song.ogg"), "path"),
            (lambda: Session.open(session.folder).run(), "model"),
        ):
            with pytest.raises(ValueError, match=name):
                call()
        assert len(Session.open(session.folder).takes) == 1

    def test_what_is_not_made_cannot_be_gone_on_from(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=1.0)
        with pytest.raises(ValueError, match="not; `run` makes it"):
            session.branch(2, 1.0)

    def test_several_beginnings_are_chosen_from(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=0.5, num_samples=2, seed=1, stop_level=2)
        session.run()
        with pytest.raises(ValueError, match="none is kept"):
            session.upsample()
        session.keep(2)
        session.upsample()
        same(session.codes(), stub_model.generate(duration=0.5, song_ids=[1], seed=1).codes)


class TestInterruptions:
    @pytest.mark.parametrize(("schedule", "seed"), [("parallel", 1), ("sequential", 2)])
    def test_a_session_that_is_stopped_again_and_again(self, stub_model, tmp_path, schedule, seed):
        chance = torch.Generator().manual_seed(seed)
        arguments = {"duration": 2.0, "num_samples": 2, "seed": 5, "schedule": schedule}
        folder = tmp_path / "song"
        stub_model.new_session(folder, **arguments)
        stops = 0
        while True:
            session = Session.open(folder, stub_model)
            if not session.jobs:
                break
            left = int(torch.randint(1, 4, (1,), generator=chance))

            def stop(told):
                nonlocal left
                left -= 1
                return left > 0

            try:
                session.run(max_batch_size=1, progress=stop)
            except GenerationCancelled:
                stops += 1
        assert stops > 2
        whole = stub_model.generate(**arguments)
        for song in range(2):
            same(session.codes(song + 1), [codes[song : song + 1] for codes in whole.codes])

    def test_an_error_in_the_middle_of_a_window_loses_no_window_before_it(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=2.0, seed=5, schedule="sequential")
        whole = stub_model.generate(duration=2.0, seed=5, schedule="sequential")
        stub_model.priors[1].fail_at = 15
        with pytest.raises(KeyboardInterrupt):
            session.run()
        shares = session.fractions()
        assert shares[2] == 1 and shares[0] == 0
        stub_model.priors[1].fail_at = None
        again = Session.open(session.folder)
        again.resume(stub_model)
        same(again.codes(), whole.codes)

    def test_progress_counts_what_is_left(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=2.0, seed=5)
        with pytest.raises(GenerationCancelled):
            session.run(max_batch_size=1, progress=lambda told: told.level == 2)
        told = []
        session.run(progress=told.append)
        assert told[-1].codes_done == told[-1].codes_total
        assert {each.level for each in told} == {0, 1}

    def test_killed_at_bad_moments(self, run_afresh, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path / "model")
        printed, _ = run_afresh(f"root = {str(tmp_path)!r}" + textwrap.dedent(KILLED))
        assert json.loads(printed)["kills"] >= 8


KILLED = """
    import contextlib, json, os, random, signal, time
    import torch
    from fast_jukebox import FastJukeboxModel
    from fast_jukebox.sessions.session import Session
    from fast_jukebox.utils import files

    torch.set_num_threads(1)
    model = FastJukeboxModel.from_pretrained(root + "/model").eval()
    arguments = dict(duration=0.4, seed=2, num_samples=2, schedule=["parallel", "sequential", None])
    whole = model.generate(**arguments, engine="eager")
    model.new_session(root + "/song", **arguments)
    chance = random.Random(0)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly(moment, number):
        # Dies in the number-th write: with half of it on the disk, before it has its name, or just after.
        writing, rename, count = files.writing, os.replace, [0]

        class Half:
            def __init__(self, file):
                self.file = file

            def write(self, content):
                self.file.write(content[: len(content) // 2])
                die()

        @contextlib.contextmanager
        def written(path, mode=None):
            count[0] += 1
            with writing(path, mode) as file:
                yield Half(file) if count[0] == number and moment == "half" else file

        def renamed(old, new):
            if count[0] == number and moment == "before":
                die()
            rename(old, new)
            if count[0] == number and moment == "after":
                die()

        files.writing, os.replace = written, renamed

    def killed(prepare, delay=None):
        child = os.fork()
        if child == 0:
            prepare()
            Session.open(root + "/song", model).run(max_batch_size=1, engine="eager")
            os._exit(0)
        if delay is not None:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    kills = 0
    for number in (1, 3):
        for moment in ("half", "before", "after"):
            kills += killed(lambda: deadly(moment, number))
    for _ in range(4):
        kills += killed(lambda: None, chance.uniform(0, 0.05))
    session = Session.open(root + "/song", model)
    session.run(engine="eager")
    for song in range(2):
        for own, codes in zip(session.codes(song + 1), whole.codes):
            assert torch.equal(own, codes[song : song + 1])
    assert not [name for name in os.listdir(root + "/song/codes") if name.startswith(".")]
    print(json.dumps(dict(kills=kills)))
"""


class TestThreads:
    def test_threads_that_share_a_session_lose_no_take(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=0.5, seed=7, stop_level=2)
        session.run()
        made, errors = [], []

        def work():
            try:
                for _ in range(4):
                    made.extend(take.number for take in session.branch(1, 0.1, take=1))
                    session.tree()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert sorted(made) == list(range(2, 18)) == list(Session.open(tmp_path / "song").takes)[1:]
        assert len({take.seed for take in session.takes.values()}) == 17

    def test_what_fails_to_be_saved_is_not_there(self, stub_model, tmp_path, monkeypatch):
        session = stub_model.new_session(tmp_path / "song", duration=0.5, seed=7, stop_level=2)
        session.run()

        def full(body):
            raise SessionError("the disk is full")

        monkeypatch.setattr(session._store, "write_manifest", full)
        with pytest.raises(SessionError, match="full"):
            session.branch(2, 0.1)
        assert list(session.takes) == [1] and session.jobs == []


class TestFuzz:
    def test_damaged_sessions_give_clear_errors_or_the_same_codes(self, stub_model, tmp_path):
        """One file is cut short, garbled, emptied, lost or taken for another."""
        chance = torch.Generator().manual_seed(0)

        def draw(count):
            return int(torch.randint(count, (1,), generator=chance))

        session = stub_model.new_session(tmp_path / "song", duration=1.2, seed=7)
        session.run()
        session.cut(0.8)
        session.branch(1, 0.4)
        session.request()
        session.run()
        expected = {number: session.codes(number) for number in session.takes}
        whole = {path: path.read_bytes() for path in session.folder.rglob("*") if path.is_file()}
        paths = sorted(path for path in whole if path.name != "lock")
        refused = 0
        for _ in range(50):
            path = paths[draw(len(paths))]
            content = bytearray(whole[path])
            kind = draw(6)
            if kind == 0:
                del content[draw(len(content)) :]
            elif kind == 1:
                for _ in range(1 + draw(4)):
                    content[draw(len(content))] ^= 1 + draw(255)
            elif kind == 2:
                content = bytearray(torch.randint(256, (draw(300),), generator=chance).tolist())
            elif kind == 3:
                content = bytearray(whole[paths[draw(len(paths))]])
            elif kind == 4:
                at = draw(len(content))
                content[at:at] = content[: draw(40)]
            path.write_bytes(content)
            if kind == 5:
                path.unlink()
            try:
                damaged = Session.open(session.folder, stub_model)
                damaged.tree()
                damaged.request()
                damaged.run()
                for number, codes in expected.items():
                    same(damaged.codes(number), codes)
            except (SessionError, ValueError) as error:
                refused += 1
                assert len(str(error)) > 20
            finally:
                for own, before in whole.items():
                    own.write_bytes(before)
        assert refused > 25

    def test_another_model_is_refused(self, stub_model, tmp_path):
        session = stub_model.new_session(tmp_path / "song", duration=1.0, seed=1, model_name="band/model")
        other = type(stub_model)()
        other.priors[1].weight.data.fill_(1.0)
        with pytest.raises(ValueError, match="middle prior.*band/model"):
            session.run(other)
        session.run(stub_model)
        session.audio(model=other)  # the codes are there, and the codebook is the same
        other.vqvae.weight.data.fill_(1.0)
        with pytest.raises(ValueError, match="VQ-VAE"):
            session.audio(model=other)
