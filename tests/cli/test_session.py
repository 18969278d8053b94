import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior
from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import SessionStore
from fast_jukebox_cli import session
from fast_jukebox_cli.options import Machine
from fast_jukebox_cli.session import open_session


@pytest.fixture
def slow_model(tiny_config):
    """Of few samples a second, so that songs of many seconds take none."""
    tiny_config.vqvae_config.sampling_rate = 48
    for prior in tiny_config.prior_configs:
        prior.sampling_rate = 48
    return FastJukeboxModel(tiny_config).eval()


@pytest.fixture
def embedded(slow_model, tmp_path, monkeypatch):
    slow_model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("fast_jukebox_cli.model.default_model_path", lambda: tmp_path / "model")
    return slow_model


@pytest.fixture
def page(docs_section):
    return docs_section("play.md", "Sessions")


def test_every_command_of_the_page(run, embedded, page):
    soundfile.write(run.folder / "phone.wav", np.sin(np.arange(384)) / 2, 48)
    shown = []
    for block in re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL):
        for line in block.strip().splitlines():
            program, *arguments = line.split()
            assert program == "fast-jukebox"
            result = run(*arguments, *(["--quiet"] if arguments[0] in ("session", "branch", "extend") else []))
            assert result.exit_code == 0, f"{line}\n{result.output}"
            shown.append(result.output)
    assert (run.folder / "my-song" / "take-1-top.wav").is_file()
    assert soundfile.info(run.folder / "my-song.flac").duration == pytest.approx(21, abs=0.3)
    drawn = re.findall(r"```\n(take.*?)```", page, flags=re.DOTALL)[0]
    # The page shows the embedded model's, which has labels and codes of other lengths.
    drawn = drawn.replace(", recorder, air", "").replace("18.0042 s", "18 s")
    assert re.sub(r"seed \d{3,}", "seed ...", shown[2]).strip() == drawn.strip()
    kept = Session.open(run.folder / "my-song", embedded)
    whole = embedded.generate(
        codes=[None, None, kept.codes(6)[2]], seed=[kept.takes[6].seed], song_ids=[0], temperature=0.9
    )
    for own, codes in zip(kept.codes(6), whole.codes, strict=True):
        assert torch.equal(own, codes)


def test_the_python_of_the_page(embedded, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {"model": embedded}
    exec(code, names)
    assert names["middle"].shape[1] == 2 * names["top"].shape[1]
    assert Path("song.wav").is_file()


def test_what_was_interrupted_is_finished(run, embedded, monkeypatch):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run", interrupted)
    result = run("session", "new", "song", "--duration", 3, "--seed", 5, "--quiet")
    assert result.exit_code == 130
    assert "resume" in result.stderr
    monkeypatch.undo()
    monkeypatch.setattr("fast_jukebox_cli.model.default_model_path", lambda: run.folder.parent / "model")
    monkeypatch.chdir(run.folder)
    result = run("resume", "song")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(run.folder / "song" / "take-1-bottom.wav")]
    whole = embedded.generate(duration=3, seed=5)
    assert torch.equal(Session.open("song").codes()[0], whole.codes[0])


def test_bad_input_is_one_line(run, embedded):
    soundfile.write(run.folder / "phone.wav", np.zeros(384), 48)
    run("session", "new", "song", "--duration", 1, "--draft", "--quiet")
    for arguments, code, text in (
        (("takes", "nowhere"), 1, "no session"),
        (("session", "new", "song"), 2, "new or empty"),
        (("session", "new", "other", "--offload", "attic"), 2, "--offload"),
        (("branch", "song", "--seconds", 0), 2, "--seconds"),
        (("keep", "song", 9), 2, "take"),
        (("cut", "song", "--seconds", 99), 2, "seconds"),
        (("extend", "song", "--duration", 0.5), 2, "duration"),
        (("export", "song", "--output", "song.ogg"), 2, "--output"),
        (("export", "song", "--output", "nowhere/song.wav"), 2, "--output"),
        (("export", "song", "--output", "codes.safetensors", "--start", 1), 2, "--start"),
        (("export", "song", "--level", 0), 2, "bottom"),
        (("upsample", "song", "--session", "x"), 2, "--session"),
        (("upsample", "phone.wav", "--take", 1), 2, "--take"),
        (("upsample", "nowhere.wav"), 2, "nothing at"),
        (("upsample", "song", "--artist", "Nobody"), 2, "--artist"),
        (("upsample", "song", "--engine", "steam"), 2, "--engine"),
        (("session", "new", "other", "--prompt", "nowhere.wav"), 2, "--prompt"),
        (("session", "new", "other", "--codes", "phone.wav"), 2, "--codes"),
        (("session", "new", "other", "--codes", "phone.wav", "--prompt", "phone.wav"), 2, "--codes"),
        (("session", "new", "other", "--lyrics", "la", "--lyrics-file", "phone.wav"), 2, "--lyrics-file"),
        (("session", "new", "other", "--seed", -1), 2, "--seed"),
        (("session", "new", "other", "--songs", 0), 2, "--songs"),
        (("session", "new", "other", "--top-k", "many"), 2, "--top-k"),
        (("branch", "song"), 2, "--seconds"),
        (("branch", "song", "--secnds", 3), 2, "--secnds"),
        (("extend", "song", "--duration", "long"), 2, "--duration"),
        (("sesion",), 2, "sesion"),
        (("resume", "song", "--model", "./nowhere"), 1, "nowhere"),
        (
            ("branch", "song", "--seconds", 1, "--artist", "Nobody"),
            2,
            "song's metadata (`--artist` and the like) must be left out",
        ),
    ):
        result = run(*arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert text in result.stderr and result.stderr.startswith("fast-jukebox: "), (arguments, result.stderr)
        assert len(result.stderr.splitlines()) == 1 and result.stdout == "", (arguments, result.output)
    assert len(Session.open(run.folder / "song").takes) == 1


def test_a_session_in_use(run, embedded):
    run("session", "new", "song", "--duration", 1, "--draft", "--quiet")
    with SessionStore(run.folder / "song").locked():
        result = run("keep", "song", 1)
        assert result.exit_code == 1 and "in use" in result.stderr
        assert run("takes", "song").exit_code == 0


def test_a_model_that_moved_is_asked_for(tiny_model, tmp_path):
    tiny_model.new_session(tmp_path / "song", duration=0.1)
    with pytest.raises(ValueError, match="--model"):
        open_session(tmp_path / "song", Machine(device="cpu", quiet=True))


def test_a_session_goes_on_from_codes(run, embedded):
    whole = embedded.generate(duration=3, seed=2)
    run("session", "new", "song", "--duration", 3, "--seed", 2, "--quiet")
    run("export", "song", "--output", "codes.safetensors")
    result = run("session", "new", "longer", "--codes", "codes.safetensors", "--duration", 5, "--seed", 4, "--quiet")
    assert result.exit_code == 0, result.output
    expected = embedded.generate(duration=5, codes=whole.codes, seed=4).codes
    for own, codes in zip(Session.open("longer").codes(), expected, strict=True):
        assert torch.equal(own, codes)


def test_what_is_not_finished_is_told_and_a_missing_sound_is_made(run, embedded, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fast_jukebox_cli.session.sounds", interrupted)
    result = run("session", "new", "song", "--duration", 1, "--seed", 5, "--quiet")
    assert result.exit_code == 130 and "is saved, `fast-jukebox resume" in result.stderr
    monkeypatch.undo()
    monkeypatch.chdir(run.folder)
    monkeypatch.setattr("fast_jukebox_cli.model.default_model_path", lambda: run.folder.parent / "model")
    assert "not finished" not in run("takes", "song").stdout
    assert run("resume", "song").stdout.splitlines() == [str(run.folder / "song" / "take-1-bottom.wav")]
    assert run("resume", "song").stdout == ""
    Session.open("song").branch(1, 1.0)
    assert "not finished: take 2; `fast-jukebox resume song` goes on" in run("takes", "song").stdout


def test_a_model_is_loaded_at_the_session_s_revision(tiny_model, tmp_path, monkeypatch):
    tiny_model.config._commit_hash = "abc123"
    tiny_model.new_session(tmp_path / "song", duration=0.1, model_name="band/model")
    loaded = []

    def from_pretrained(name, **settings):
        loaded.append((name, settings.get("revision")))
        return tiny_model

    monkeypatch.setattr(FastJukeboxModel, "from_pretrained", from_pretrained)
    open_session(tmp_path / "song", Machine(device="cpu", quiet=True))
    open_session(tmp_path / "song", Machine("band/other", device="cpu", quiet=True))
    assert loaded == [("band/model", "abc123"), ("band/other", None)]


def test_words_of_a_session(run, words_model, tmp_path):
    words_model.save_pretrained(tmp_path / "words-model")
    (run.folder / "lyrics.txt").write_text("Where the wind blows", encoding="utf-8")
    told = ["--artist", "Ann Lee", "--lyrics-file", "lyrics.txt", "--total-duration", 10]
    result = run("session", "new", "song", "--model", tmp_path / "words-model", "--duration", 0.1, "--seed", 1, *told)
    assert result.exit_code == 0, result.output
    run("branch", "song", "--seconds", 0.1, "--genre", "classic pop", "--count", 1)
    session = Session.open("song")
    words = {"artist": "Ann Lee", "lyrics": "Where the wind blows", "total_duration": 10.0}
    assert session.takes[1].metadata == {"words": words}
    assert session.takes[2].metadata == {"words": {**words, "genre": "classic pop"}}
    whole = words_model.generate(duration=0.1, seed=1, metadata=words)
    assert torch.equal(session.codes(1)[0], whole.codes[0])


def test_what_was_stopped_is_heard_when_it_is_finished(run, slow_model, monkeypatch):
    """The sound of a part, of a level below the one that was heard, and of what another command finishes first."""
    monkeypatch.setattr("fast_jukebox_cli.session.load", lambda *given: slow_model)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    def stopped(at, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(Session, at, interrupted)
            result = run(*arguments, "--engine", "eager", "--quiet")
        assert result.exit_code == 130 and "resume" in result.stderr

    def names(*arguments):
        result = run(*arguments, "--engine", "eager", "--quiet")
        assert result.exit_code == 0, result.output
        return [line.rpartition("/")[2] for line in result.stdout.splitlines()]

    assert names("session", "new", "song", "--duration", 12, "--seed", 5, "--draft") == ["take-1-top.wav"]
    stopped("run", "upsample", "song", "--start", 1, "--end", 2)
    assert names("resume", "song") == ["take-1-1-2.wav"]
    stopped("run", "branch", "song", "--count", 2, "--seconds", 1)
    stopped("export", "upsample", "song", "--take", 1)
    assert names("resume", "song") == ["take-1-bottom.wav", "take-2-top.wav", "take-3-top.wav"]
    assert names("resume", "song") == []
    stopped("run", "extend", "song", "--duration", 14, "--take", 1)
    assert names("upsample", "song", "--take", 2, "--stop-level", 1) == ["take-2-middle.wav", "take-4-top.wav"]


def test_what_is_not_finished_is_given_up(run, embedded, monkeypatch):
    run("session", "new", "song", "--duration", 1, "--draft", "--quiet")
    Session.open(run.folder / "song").branch(2, 1.0)
    result = run("forget", "song")
    assert result.exit_code == 0 and "take 3: branch, 2 s" in result.stderr
    assert "not finished" not in run("takes", "song").stdout
    assert run("resume", "song", "--quiet").stdout == ""
    assert Session.open(run.folder / "song").fractions(2)[2] < 1


def test_notes_are_read_and_changed_without_torch_and_transformers(run, embedded):
    run("session", "new", "song", "--duration", 1, "--quiet")
    code = """
import sys
from fast_jukebox_cli.app import main

sys.argv = ["fast-jukebox", *sys.argv[1:]]
try:
    main()
finally:
    print([name for name in ("torch", "transformers") if name in sys.modules], file=sys.stderr)
"""
    for arguments in (
        ("--version",),
        ("takes", "song"),
        ("keep", "song", "1"),
        ("cut", "song", "--seconds", "0.5"),
        ("forget", "song"),
        ("keep", "song", "9"),
    ):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, cwd=run.folder
        )
        assert result.returncode == (2 if arguments[-1] == "9" else 0), result.stderr
        assert result.stderr.splitlines()[-1] == "[]", (arguments, result.stderr)
    assert "take 2: cut, 0.666667 s" in Session.open(run.folder / "song").tree()


def save_lora(base, folder, std=1.0):
    """An adapter of the top level that is heard."""
    pytest.importorskip("peft")
    from fast_jukebox.models.adapters import add_lora, save_adapter

    model = add_lora(FastJukeboxPrior.from_pretrained(base, level=2), rank=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    save_adapter(model, folder)


def test_a_session_keeps_its_adapter_and_refuses_another(run, embedded, monkeypatch):
    base = run.folder.parent / "model"
    save_lora(base, run.folder / "lora")
    save_lora(base, run.folder / "other", std=2.0)
    result = run("session", "new", "song", "--adapter", "2=lora", "--duration", 3, "--seed", 5, "--draft", "--quiet")
    assert result.exit_code == 0, result.output
    facts = Session.open("song").facts
    assert facts.adapters == (None, None, str(run.folder / "lora"))
    adapted = FastJukeboxModel.from_pretrained(base, adapters={2: "lora"})
    top = Session.open("song").codes()[2]
    assert torch.equal(top, adapted.generate(duration=3, seed=5, stop_level=2).codes[2])
    assert not torch.equal(top, embedded.generate(duration=3, seed=5, stop_level=2).codes[2])

    assert run("branch", "song", "--seconds", 1, "--count", 1, "--quiet").exit_code == 0
    branch = Session.open("song").takes[2]
    expected = adapted.generate(duration=4, codes=[None, None, top], seed=[branch.seed], stop_level=2).codes[2]
    assert torch.equal(Session.open("song").codes(2)[2], expected)
    named = f"the session was made with embedded with the adapter 2={run.folder / 'lora'}"
    for words, said in (
        (("--adapter", "2=other"), named),
        (("--model", base), named),
        (("--adapter", "0=lora"), "`lora` is of level 2"),
    ):
        result = run("branch", "song", "--seconds", 1, *words)
        assert result.exit_code == 2 and said in result.stderr, result.output
    assert len(Session.open("song").takes) == 2
    plain = run("session", "new", "plain", "--duration", 1, "--draft", "--quiet")
    assert plain.exit_code == 0 and Session.open("plain").facts.adapters == ()
    assert "the session was made with embedded" in run("resume", "plain", "--adapter", "2=lora").stderr

    (run.folder / "lora").rename(run.folder / "moved")
    assert "lora" in run("resume", "song").stderr
    for words in (("--adapter", "2=moved"), ("--model", "merged")):
        adapted.save_pretrained("merged")
        result = run("extend", "song", "--duration", 5, "--take", 1, *words, "--quiet")
        assert result.exit_code == 0, result.output
    takes = Session.open("song").takes
    assert torch.equal(Session.open("song").codes(3)[2], Session.open("song").codes(4)[2]) and len(takes) == 4


def test_an_export_overwrites_with_force_alone_and_never_the_codes(run, embedded):
    run("session", "new", "song", "--duration", 1, "--draft", "--quiet")
    (run.folder / "out.wav").write_bytes(b"older")
    found = run("export", "song", "--output", "out.wav")
    assert (found.exit_code, "--force overwrites it" in found.output) == (2, True)
    assert run("export", "song", "--output", "out.wav", "--force").exit_code == 0
    assert soundfile.info(run.folder / "out.wav").samplerate == 48
    codes = sorted((run.folder / "song" / "codes").iterdir())
    before = [path.read_bytes() for path in codes]
    for path in codes:
        found = run("export", "song", "--output", path, "--force")
        assert (found.exit_code, "among the codes" in found.output) == (2, True)
    assert [path.read_bytes() for path in codes] == before


def test_an_export_of_a_rate_that_its_format_lacks_is_refused_before_a_model_is_loaded(run, embedded, monkeypatch):
    run("session", "new", "song", "--duration", 1, "--draft", "--quiet")
    monkeypatch.setattr(session, "open_session", lambda *args: pytest.fail("loaded"))
    found = run("export", "song", "--output", "out.mp3")
    assert (found.exit_code, "`--output` must be of another format" in found.output) == (2, True)
