import contextlib
import hashlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fast_jukebox.models.prior.engines import native_library
from fast_jukebox.models.prior.engines.native_library import NativeUnavailable, library, load, unsafe

posix = pytest.mark.skipif(os.name != "posix", reason="owners and permissions are others there")


@pytest.fixture(scope="module")
def compiler():
    try:
        return library()
    except NativeUnavailable as error:
        pytest.skip(str(error))


QUICK = ("-O0", "-std=gnu11", "-shared", "-fPIC")


@pytest.fixture(scope="module")
def built(compiler, tmp_path_factory):
    """A cache into which it was built quickly, as it is for tests of `cache`."""
    root = tmp_path_factory.mktemp("built")
    root.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_library, "FLAGS", QUICK)
        patch.setenv("XDG_CACHE_HOME", str(root))
        library.cache_clear()
        library()
    library.cache_clear()
    return root / "fast_jukebox"


@pytest.fixture
def filled(cache, built):
    """The same cache with what is built into it."""
    shutil.copytree(built, cache)
    assert native_library._is_sound(kept(cache))
    return cache


@pytest.fixture
def cache(compiler, tmp_path, monkeypatch):
    """An own, empty cache; nothing is built yet as far as this process knows, and building is quick."""
    monkeypatch.setattr(native_library, "FLAGS", QUICK)
    root = tmp_path / "cache"
    root.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    library.cache_clear()
    yield root / "fast_jukebox"
    library.cache_clear()


@pytest.fixture
def other_library(tmp_path):
    """Makes a library that is not ours, which writes a file as it is loaded."""
    source, target = tmp_path / "other.c", tmp_path / "other.so"
    loaded = tmp_path / "loaded"
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) static void f(void) {{ fclose(fopen("{loaded}", "w")); }}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    return target.read_bytes(), loaded


def built_again():
    library.cache_clear()
    return library()


def kept(cache):
    (path,) = cache.glob("*.so")
    return path


def test_it_is_built_once_into_the_users_cache(cache):
    library()
    path = kept(cache)
    assert {each.name for each in cache.iterdir()} == {path.name, f"{path.stem}.sha256"}
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert path.with_suffix(".sha256").read_text().strip() == hashlib.sha256(path.read_bytes()).hexdigest()
    made = path.stat().st_mtime_ns
    built_again()
    assert path.stat().st_mtime_ns == made


@pytest.mark.parametrize("size", [0, 1000, 4096, "half"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_damaged_one_is_never_loaded_and_is_built_again(filled, size, padded):
    path = kept(filled)
    whole = path.read_bytes()
    size = len(whole) // 2 if size == "half" else size
    path.unlink()  # the one that is loaded must stay as it is
    path.write_bytes(whole[:size] + (bytes(len(whole) - size) if padded else b""))
    path.chmod(0o700)
    assert not native_library._is_sound(path)
    assert built_again().run is not None
    assert native_library._is_sound(path)


def test_one_without_its_digest_or_with_another_is_built_again(filled, other_library):
    content, loaded = other_library
    path = kept(filled)
    for digest in (None, "", "0" * 64, "\xff"):
        path.unlink()
        path.write_bytes(content)
        path.chmod(0o700)
        path.with_suffix(".sha256").unlink()
        if digest is not None:
            path.with_suffix(".sha256").write_text(digest, encoding="latin-1")
        built_again()
        assert native_library._is_sound(path)
    assert not loaded.exists()


def test_another_library_with_its_digest_is_built_again(filled, tmp_path):
    path, source = kept(filled), tmp_path / "empty.c"
    source.write_text("int nothing;\n")
    path.unlink()
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(path)], check=True)
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    assert built_again().run is not None


def planted(filled, content):
    """Another library in the place of the one that is kept, with its digest; returns where."""
    path = kept(filled)
    path.unlink()
    path.write_bytes(content)
    path.with_suffix(".sha256").write_text(hashlib.sha256(content).hexdigest())
    return path


@posix
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_nothing_is_loaded_from_a_folder_that_others_can_write_to(filled, other_library, caplog, mode, monkeypatch):
    content, loaded = other_library
    monkeypatch.setattr(native_library, "_is_own_group", lambda group: False)
    path = planted(filled, content)
    path.chmod(0o755)
    filled.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert built_again().run is not None
    assert not loaded.exists()
    assert path.read_bytes() == content, "nothing is written there either"
    (record,) = caplog.records
    assert "for this process alone" in record.getMessage() and str(filled) in record.getMessage()


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_file_that_others_can_write_is_not_loaded(filled, other_library, mode):
    content, loaded = other_library
    path = planted(filled, content)
    path.chmod(mode)
    built_again()
    assert not loaded.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@posix
@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="only root can give files away")
def test_a_file_or_folder_of_another_user_is_not_used(filled, other_library):
    content, loaded = other_library
    path = planted(filled, content)
    path.chmod(0o700)
    os.chown(path, 65534, 65534)
    built_again()
    assert not loaded.exists()
    os.chown(filled, 65534, 65534)
    assert "another user" in unsafe(filled)
    assert built_again().run is not None


@posix
def test_a_link_is_not_followed(filled, other_library, tmp_path):
    content, loaded = other_library
    path = kept(filled)
    path.unlink()
    (tmp_path / "elsewhere.so").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere.so")
    path.with_suffix(".sha256").write_text(hashlib.sha256(content).hexdigest())
    built_again()
    assert not loaded.exists()
    assert not path.is_symlink()


@posix
def test_folders_are_judged_as_ssh_judges_them(tmp_path, monkeypatch):
    folder = tmp_path / "home" / "cache"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    assert unsafe(folder) is None
    folder.parent.chmod(0o1777)  # as /tmp
    assert unsafe(folder) is None
    monkeypatch.setattr(native_library, "_is_own_group", lambda group: False)
    for place, mode in ((folder.parent, 0o777), (folder.parent, 0o770), (folder, 0o1777), (folder, 0o720)):
        folder.parent.chmod(0o700)
        folder.chmod(0o700)
        place.chmod(mode)
        assert f"others can write into {str(place)!r}" in unsafe(folder)
    folder.chmod(0o700)
    folder.parent.chmod(0o770)
    monkeypatch.setattr(native_library, "_is_own_group", lambda group: True)
    assert unsafe(folder) is None
    tmp_path.chmod(0o777)
    assert unsafe(folder) is not None
    monkeypatch.setenv("HOME", str(folder.parent))  # above it no one else's folders matter
    assert unsafe(folder) is None
    tmp_path.chmod(0o700)


def test_a_cache_folder_that_is_not_absolute_is_ignored(cache, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.chdir(tmp_path)
    library()
    assert not (tmp_path / "here").exists()
    assert list((tmp_path / "home" / ".cache" / "fast_jukebox").glob("*.so"))


def test_a_folder_that_cannot_be_made_is_gone_without(cache, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert library().run is not None
    assert [str(tmp_path / "file") in line for line in caplog.messages] == [True]


@posix
@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o755, 0o700, None])
def test_in_the_cache_of_another_user_it_is_built_for_one_process(filled, other_library, mode):
    """As where $XDG_CACHE_HOME or $HOME is the administrator's: one line, and nothing of the folder is loaded."""
    content, loaded = other_library
    planted(filled, content)
    with tempfile.TemporaryDirectory() as place:  # others may not enter those of pytest
        os.chmod(place, 0o755)
        folder = Path(place) / "cache" / "fast_jukebox"
        folder.parent.mkdir(mode=0o755)
        if mode is not None:
            shutil.copytree(filled, folder)
            for made in folder.iterdir():
                made.chmod(0o755)
            folder.chmod(mode)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            said = "nothing"
            with contextlib.suppress(BaseException):
                os.setgid(65534)
                os.setuid(65534)
                os.environ["XDG_CACHE_HOME"] = str(folder.parent)
                lines: list[str] = []
                native_library.logger.warning = lambda text, *words: lines.append(text % words)
                made = built_again()
                inside = Path(made._name).is_relative_to(folder.parent)
                said = json.dumps([made.run is not None, inside, lines])
            os.write(writing, said.encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with open(reading) as pipe:
            runs, inside, lines = json.load(pipe)
        assert runs and not inside and not loaded.exists()
        (line,) = lines
        assert "built for this process alone, at every start" in line and str(folder) in line


@posix
def test_nothing_is_built_where_others_can_put_temporary_files(cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "open"))
    with pytest.raises(NativeUnavailable, match="among the temporary files: others can write into .*open"):
        library()
    assert not list((tmp_path / "open").iterdir())
    (tmp_path / "open").chmod(0o1777)
    assert library().run is not None


def test_a_full_disk_of_the_cache_is_gone_without(cache, monkeypatch):
    def full(path, content, mode=None):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native_library, "write_file", full)
    assert library().run is not None
    assert not list(cache.glob("*"))


def test_where_there_is_no_room_to_build_it_is_told(cache, monkeypatch):
    @contextlib.contextmanager
    def full(place):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(native_library, "_build_folder", full)
    with pytest.raises(NativeUnavailable, match="no room.*No space left"):
        library()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@posix
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo out of patience >&2\nexit 1", "out of patience"),
        ("exit 0", "made nothing"),
        ("sleep 20", "did not end within 0.2 seconds"),
    ],
)
def test_a_compiler_that_fails_is_quoted(cache, tmp_path, monkeypatch, text, message):
    monkeypatch.setenv("CC", script(tmp_path / "cc", text))
    monkeypatch.setattr(native_library, "PATIENCE", 0.2 if "sleep" in text else 60)
    with pytest.raises(NativeUnavailable, match=message):
        library()


@pytest.mark.parametrize("command", ["nowhere-to-be-found", '"unfinished'])
def test_a_compiler_that_is_not_there_is_named(cache, monkeypatch, command):
    monkeypatch.setenv("CC", command)
    with pytest.raises(NativeUnavailable, match=command):
        library()


def test_a_compiler_may_have_options(cache, monkeypatch):
    monkeypatch.setenv("CC", "cc -g")
    assert library().run is not None


def test_a_file_that_is_no_library_is_named(tmp_path):
    path = tmp_path / "broken.so"
    path.write_text("no library")
    with pytest.raises(NativeUnavailable, match="broken.so"):
        load(path)


WINDOWS = """
import random, sys
import torch
from fast_jukebox import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.models.prior.engines import native, native_library
from fast_jukebox.sampling.engine import sample_window
from fast_jukebox.sampling.checks import SamplingSettings

checked = native_library.load(sys.argv[1])
native.library = lambda: checked


def drawn_config(rng):
    # Any configuration that is accepted: odd widths, every pattern, lyrics shorter and far longer than the window.
    while True:
        blocks, patterns = rng.choice([1, 2, 3, 4, 8]), ["dense", "row", "column", "previous_row"]
        fields = dict(
            level=0, num_rows=blocks, n_ctx=blocks * rng.choice([1, 2, 3, 4, 9]),
            codebook_size=rng.choice([1, 2, 15, 16, 17, 50]), hidden_size=rng.choice([1, 3, 12, 16, 17, 33, 100]),
            num_hidden_layers=rng.choice([1, 2, 4]), num_attention_heads=rng.choice([1, 1, 2, 3]),
            attention_ratio=rng.choice([0.25, 1.0, 1.5]), mlp_ratio=rng.choice([0.1, 1.0, 2.3]),
            residual_scale=rng.random() < 0.3, tie_word_embeddings=rng.random() < 0.5,
        )
        kind = rng.choice(["none", "prefix", "encoder"])
        if kind != "none":
            fields |= dict(num_artists=3, num_genres=2, lyric_vocab_size=rng.choice([1, 5, 20]))
        if kind == "prefix":
            fields["lyric_length"] = blocks * rng.choice([1, 2, 7])
            patterns.append("lyric_prefix")
        if kind == "encoder":
            fields |= dict(lyric_length=4 * rng.choice([1, 3, 20, 500]), lyric_encoder_layers=1,
                           lyric_encoder_hidden_size=8, lyric_encoder_heads=1, lyric_encoder_num_rows=4)
        fields["layer_types"] = [rng.choice(patterns) for _ in range(rng.choice([1, 2, 3]))]
        if kind == "encoder":
            fields["layer_types"][0] = "lyric_cross"
        try:
            return FastJukeboxPriorConfig(**fields)
        except ValueError:
            continue


for seed in range(int(sys.argv[2])):
    rng = random.Random(seed)
    config = drawn_config(rng)
    print(seed, config.to_diff_dict(), flush=True)
    torch.manual_seed(seed)
    prior, songs = FastJukeboxPrior(config).eval(), rng.choice([1, 2, 3, 5, 6, 7, 25])
    if rng.random() < 0.5:  # weights that are packed in float16
        prior = prior.half().float()
    settings = SamplingSettings(top_k=rng.choice([0, 1, 3]), top_p=rng.choice([1.0, 0.5]), do_sample=rng.random() < 0.8)
    metadata = None
    if config.has_labels:
        metadata = torch.zeros(songs, config.metadata_length, dtype=torch.int64)
        metadata[:, 0], metadata[:, 2] = 100, 10
    known = rng.randrange(config.n_ctx)
    with torch.inference_mode():
        decoder = native.NativeDecoder(prior, songs, settings, threads=rng.choice([1, 2]))
        step = decoder.open(prior, prior.condition(songs, config.n_ctx, metadata=metadata))
        prompt = torch.randint(0, config.codebook_size, (songs, known))
        codes = sample_window(step, prompt, torch.rand(songs, config.n_ctx - known))
    assert 0 <= codes.min() and codes.max() < config.vocab_size  # characters may be drawn
print("done")
"""


@pytest.mark.slow
def test_it_touches_no_memory_but_its_own(compiler, tmp_path):
    """The source, built with the compiler's checks of addresses and of undefined behaviour, in a process of its own."""
    (tmp_path / "windows.py").write_text(WINDOWS)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    if runtime.returncode or not Path(runtime.stdout.strip()).is_absolute():
        pytest.skip("gcc has no address sanitizer here")
    checked = tmp_path / "checked.so"
    flags = [flag for flag in native_library.FLAGS if flag != "-O3"] + [native_library.NATIVE_FLAG]
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    build = ["gcc", *flags, *checks, str(native_library.SOURCE), "-o", str(checked), "-lm"]
    subprocess.run(build, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(tmp_path / "windows.py"), str(checked), "150"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("done\n"), done.stdout.splitlines()[-1:] + done.stderr.splitlines()[:40]
