"""Files as they come: joined, cut off, without a length, behind tags, of formats that cannot be read."""

import io
import os
import struct
import warnings

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.audio.bytes import ByteReader, RangesFile
from fast_jukebox.audio.io import audio_info, load_audio
from fast_jukebox.audio.mpeg import find_frames, frame_header

RATE = 44100
ID3 = b"ID3\x03\x00\x00\x00\x01\x00\x00" + b"\xff\xfb\x90\x64" * 4096  # 16 kB that look like frames inside a tag
ID3V1 = b"TAG".ljust(128, b" ")
APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32, 0, 0x80000000)
APE_WITH_HEADER = (
    b"APETAGEX" + struct.pack("<IIII8x", 2000, 45, 1, 0xA0000000) + b"\x05\0\0\0\0\0\0\0Title" + bytes(0) + APE
)


def sound(seconds=1.0, rate=RATE, seed=0):
    """Tones and noise whose share changes, so that variable bit rates vary; float32 (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, len(time)) * (time > seconds / 2)
    return (0.3 * np.sin(2 * np.pi * (300 + 100 * seed) * time) + noise).astype(np.float32)


def encoded(container, samples, rate=RATE, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, **options)
    return file.getvalue()


def mp3(seconds=1.0, rate=RATE, seed=0, vbr=True):
    mode = {"bitrate_mode": "VARIABLE", "compression_level": 0.5} if vbr else {"bitrate_mode": "CONSTANT"}
    return encoded("MP3", sound(seconds, rate, seed), rate, **mode)


def without_tag(data):
    """An MP3 file without its first frame, which states the length."""
    return data[frame_header(data[:4]).length :]


def read(data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_audio(data, options.pop("rate", RATE), **options)


def flac_without_length(samples):
    data = bytearray(encoded("FLAC", samples))
    data[21] &= 0xF0  # the last 36 bits before the checksum count the samples
    data[22:26] = bytes(4)
    return bytes(data)


def wav_with_size(samples, size):
    data = bytearray(encoded("WAV", samples, subtype="PCM_16"))
    place = data.find(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", size)
    return bytes(data)


@pytest.mark.parametrize("rate", [44100, 48000, 22050, 16000])
@pytest.mark.parametrize("vbr", [True, False])
def test_an_mp3_that_does_not_state_its_length_is_read_to_its_end(rate, vbr):
    whole = mp3(3.0, rate, vbr=vbr)
    assert abs(len(read(whole, rate=rate)) - 3 * rate) <= 2400
    stripped = without_tag(whole)
    audio = read(stripped, rate=rate)
    assert abs(len(audio) - 3 * rate) <= 3000
    assert audio_info(stripped).frames == len(audio)
    assert audio[-rate // 2 : -rate // 4].abs().max() > 0.1


@pytest.mark.parametrize("before", [b"", ID3, ID3 + bytes(500)])
@pytest.mark.parametrize("behind", [b"", ID3V1, APE + bytes(1968), APE + bytes(1968) + ID3V1, bytes(3000)])
def test_tags_around_an_mp3_are_no_sound_and_no_damage(before, behind):
    for data in (mp3(2.0, vbr=False), without_tag(mp3(2.0, vbr=False))):
        assert abs(len(read(before + data + behind)) - 2 * RATE) <= 3000


def test_joined_mp3_files_are_read_one_after_the_other():
    first, second = mp3(1.0, seed=1), mp3(2.0, seed=2)
    alone = [read(first), read(second)]
    for between in (b"", ID3, ID3V1 + ID3):
        audio = read(first + between + second)
        assert torch.allclose(audio, torch.cat(alone), atol=1e-4)
    stripped = read(without_tag(first) + without_tag(second))
    assert abs(len(stripped) - 3 * RATE) <= 6000


def test_an_mp3_whose_header_states_more_or_less_than_it_holds():
    data = bytearray(mp3(2.0))
    place = data.find(b"Xing") if b"Xing" in data else data.find(b"Info")
    frames = int.from_bytes(data[place + 8 : place + 12], "big")
    data[place + 8 : place + 12] = (frames // 3).to_bytes(4, "big")
    assert abs(len(read(bytes(data))) - 2 * RATE) <= 3000
    data[place + 8 : place + 12] = (frames * 3).to_bytes(4, "big")
    with pytest.warns(UserWarning, match=f"states {frames * 3} frames, and {frames} are there"):
        assert abs(len(load_audio(bytes(data))) - 2 * RATE) <= 3000


def test_damage_within_an_mp3_costs_what_is_damaged_and_no_word_of_the_decoder(tmp_path, capfd):
    data = bytearray(without_tag(mp3(12.0, vbr=False)))
    data[20000:29000] = np.random.default_rng(0).integers(0, 255, 9000).astype(np.uint8).tobytes()
    for place in range(35000, 50000, 700):
        data[place] ^= 0x5A
    (tmp_path / "hurt.mp3").write_bytes(data)
    with pytest.warns(UserWarning, match=r"hurt\.mp3.*no frames of sound"):
        seconds = len(load_audio(tmp_path / "hurt.mp3")) / RATE
    os.write(2, b"somebody else\n")
    assert 10.0 < seconds < 12.1
    assert capfd.readouterr().err == "somebody else\n"


@pytest.mark.parametrize("container", ["OGG", "OPUS", "FLAC", "WAV"])
@pytest.mark.parametrize("count", [2, 5])
def test_joined_files_are_read_one_after_the_other(tmp_path, container, count):
    rate = 48000
    options = {"subtype": "OPUS"} if container == "OPUS" else {}
    parts = [encoded(container.replace("OPUS", "OGG"), sound(0.3 + i, rate, i), rate, **options) for i in range(count)]
    alone = torch.cat([read(part, rate=rate) for part in parts])
    joined = b"".join(parts)
    assert torch.equal(read(joined, rate=rate), alone)
    assert audio_info(joined).frames == len(alone)
    (tmp_path / "joined").write_bytes(joined)
    for start in (0, rate // 4, rate, len(alone) - 500):
        part = read(tmp_path / "joined", rate=rate, offset=start / rate, duration=0.01)
        assert torch.allclose(part, alone[start : start + 480], atol=1e-6)


def test_joined_files_of_other_rates_are_refused_by_name():
    data = encoded("OGG", sound()) + encoded("OGG", sound(rate=22050), 22050)
    with pytest.raises(ValueError, match="the given bytes changes from 44100 to 22050"):
        load_audio(data)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFDB])
def test_a_wav_file_written_into_a_pipe_is_read_to_its_end(size):
    samples = sound()
    assert np.abs(read(wav_with_size(samples, size)).numpy() - samples).max() < 1e-4


def test_a_wav_file_that_holds_less_or_more_than_it_states():
    data = encoded("WAV", sound(2.0), subtype="PCM_16")
    with pytest.warns(UserWarning, match="states 176400 bytes of sound, and 88200 are there"):
        assert len(load_audio(data[: len(data) - 88200])) == RATE
    with pytest.warns(UserWarning, match="100000 bytes stand behind"):
        assert len(load_audio(data + bytes(100_000))) == 2 * RATE
    assert len(read(data + b"LIST" + struct.pack("<I", 8000) + bytes(8000))) == 2 * RATE


@pytest.mark.parametrize(("container", "cut"), [("AIFF", "bytes of sound"), ("AU", "bytes of sound"), ("OGG", "page")])
def test_other_files_that_were_cut_off_say_so(container, cut):
    data = encoded(container, sound(2.0))
    info = audio_info(data[: len(data) * 2 // 3])
    assert cut in info.missing
    assert audio_info(data).missing is None
    assert audio_info(data).left_out is None


def test_a_flac_file_of_unknown_length_and_one_behind_a_tag():
    samples = sound(2.0)
    wanted = read(encoded("FLAC", samples))
    data = flac_without_length(samples)
    assert audio_info(data).frames == len(samples)
    assert torch.equal(read(data), wanted)
    assert torch.equal(read(ID3 + encoded("FLAC", samples)), wanted)
    joined = read(data + data)
    assert torch.equal(joined, torch.cat([wanted, wanted]))


def odd_files():
    samples = sound(2.0)
    return {
        "tagged.flac": ID3 + encoded("FLAC", samples),
        "endless.flac": flac_without_length(samples),
        "gsm.wav": encoded("WAV", samples, subtype="GSM610"),
        "g721.au": encoded("AU", samples, subtype="G721_32"),
        "vbr.mp3": without_tag(mp3(2.0)),
        "joined.mp3": mp3(1.0) + ID3 + mp3(1.0, seed=1),
        "vorbis.ogg": encoded("OGG", samples),
        "opus.ogg": encoded("OGG", sound(2.0, 48000), 48000, subtype="OPUS"),
        "pipe.wav": wav_with_size(samples, 0),
    }


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name, data in odd_files().items():
        (folder / name).write_bytes(data)
    return {name: (folder / name, load_audio(folder / name)) for name in odd_files()}


@pytest.mark.parametrize("name", sorted(odd_files()))
@settings(max_examples=12, deadline=None)
@given(place=st.floats(0, 0.999))
def test_sound_at_any_offset_is_that_of_the_whole(odd, name, place):
    path, whole = odd[name]
    rate = audio_info(path).sampling_rate
    if rate != RATE:
        whole = load_audio(path, rate)
    start = int(place * (len(whole) - 1))
    part = load_audio(path, rate, offset=start / rate, duration=0.02)
    assert torch.allclose(part, whole[start : start + round(0.02 * rate)], atol=1e-6)


@pytest.mark.parametrize("place", [0.9, 0.99, 0.999, 0.9999])
def test_a_long_ogg_file_is_exact_up_to_its_end(tmp_path, place):
    """libvorbis seeks some samples past where it is asked to, in the last page."""
    (tmp_path / "a.ogg").write_bytes(encoded("OGG", sound(7.0)))
    whole = load_audio(tmp_path / "a.ogg")
    start = int(place * len(whole))
    assert torch.equal(load_audio(tmp_path / "a.ogg", offset=start / RATE), whole[start:])


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x00\x20ftypM4A ", "MP4"),
        (b"\x1aE\xdf\xa3\x01\x00\x00\x00", "WebM"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
        (b"#!AMR\n", "AMR"),
        (b"\xff\xf1\x50\x80", "AAC"),
        (b"ID3\x04\x00\x00\x00\x00\x00\x00\xff\xf1\x50\x80", "AAC"),
        (b"wvpk\x00\x00", "WavPack"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".m4a"])
def test_formats_that_cannot_be_read_are_told_with_what_to_do(tmp_path, head, name, suffix):
    path = tmp_path / f"phone{suffix}"
    path.write_bytes(head + np.random.default_rng(0).integers(0, 255, 50_000).astype(np.uint8).tobytes())
    with pytest.raises(ValueError, match=rf"phone\{suffix} is an? .*{name}.*ffmpeg"):
        load_audio(path)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 60_000), lead=st.sampled_from([b"", b"\xff\xfb", b"ID3\x04"]))
def test_noise_is_no_sound(seed, size, lead):
    noise = lead + np.random.default_rng(seed).integers(0, 255, size).astype(np.uint8).tobytes()
    with pytest.raises(ValueError, match="given bytes"):
        load_audio(noise)


def test_a_name_that_is_no_utf8_is_opened_and_can_be_printed(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    try:
        soundfile.write(io.BytesIO(), sound(), RATE, format="WAV")
        with open(path, "wb") as file:
            file.write(encoded("WAV", sound()))
    except OSError:
        pytest.skip("the file system takes no such name")
    assert len(load_audio(path)) == RATE
    with open(path, "wb") as file:
        file.write(b"no sound")
    with pytest.raises(ValueError, match=r"caf\\udce9\.wav is no sound"):
        load_audio(path)


def test_an_error_of_the_disk_is_raised_as_it_is():
    class Broken(io.BytesIO):
        reads = 0

        def read(self, count=-1):
            self.reads += 1
            if self.reads > 2:
                raise OSError(5, "Input/output error")
            return super().read(count)

    with pytest.raises(OSError, match="Input/output error"):
        load_audio(Broken(encoded("WAV", sound(20.0))))


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=4),
    prefix=st.binary(max_size=5),
    asked=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 50)), max_size=5),
)
def test_ranges_read_as_the_bytes_they_stand_for(cuts, prefix, asked):
    data = bytes(range(100))
    ranges = [(min(cut), max(cut)) for cut in cuts]
    wanted = prefix + b"".join(data[start:stop] for start, stop in ranges)
    file = RangesFile(io.BytesIO(data), ranges, prefix)
    assert file.seek(0, io.SEEK_END) == len(wanted)
    for position, count in asked:
        file.seek(position)
        assert file.read(count) == wanted[position : position + count]


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=60), pattern=st.binary(min_size=1, max_size=3), start=st.integers(0, 60))
def test_bytes_are_found_where_they_are(data, pattern, start):
    assert ByteReader(io.BytesIO(data)).find(pattern, start, len(data)) == data.find(pattern, start)


def test_frames_are_counted_as_the_encoder_counts_them():
    data = mp3(3.0)
    (run,) = find_frames(ByteReader(io.BytesIO(data)))
    assert run.stated == run.frames
    assert run.ranges[-1][1] == len(data)


def with_size(data, kind, size, order, at=4):
    """A file whose chunk of sound states another size, of 8 bytes."""
    place = data.find(kind) + at
    return data[:place] + (size % 2**64).to_bytes(8, order) + data[place + 8 :]


@pytest.mark.parametrize(
    ("container", "kind", "order", "at", "header"),
    [("RF64", b"ds64", "little", 16, 0), ("W64", b"data", "little", 16, 24), ("CAF", b"data", "big", 4, 0)],
)
def test_sizes_of_eight_bytes_are_not_believed(container, kind, order, at, header):
    samples = sound(0.5)
    data = encoded(container, samples, subtype="PCM_16")
    whole = read(data)
    assert len(whole) == len(samples)
    unknown = [2**64 - 1, *([] if container == "CAF" else [0 + header])]
    for size in unknown:
        assert torch.equal(read(with_size(data, kind, size, order, at)), whole)
    with pytest.warns(UserWarning, match=r"its header states \d+ bytes of sound, and \d+ are there"):
        cut = load_audio(data[: len(data) // 2], RATE)
    assert 0 < len(cut) < len(whole) and torch.equal(cut, whole[: len(cut)])
    with pytest.warns(UserWarning, match="bytes stand behind its stated end"):
        assert len(load_audio(with_size(data, kind, 20_000 + header, order, at), RATE)) in (9998, 10_000)


def test_bw64_is_read_as_rf64():
    data = encoded("RF64", sound(0.5), subtype="PCM_16")
    assert torch.equal(read(b"BW64" + data[4:]), read(data))


@pytest.mark.parametrize("before", [APE_WITH_HEADER, bytes(5000), bytes(5000) + ID3, ID3 + APE_WITH_HEADER])
def test_what_stands_before_the_sound_is_left_out(before):
    for data in (mp3(), encoded("FLAC", sound()), encoded("WAV", sound())):
        assert torch.equal(read(before + data), read(data))


def test_zeros_behind_an_mp3_are_no_damage():
    data = mp3()
    assert torch.equal(read(data + bytes(4 * len(data))), read(data))


def test_mp3_within_wav_is_exact_at_any_offset():
    data = mp3(3.0)
    kind = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 16000, 1, 0, 12, 1, 2, 417, 1, 0)
    wav = b"RIFF" + struct.pack("<I", 20 + len(kind) + len(data)) + b"WAVEfmt " + struct.pack("<I", len(kind)) + kind
    wav += b"data" + struct.pack("<I", len(data)) + data
    whole = read(data)
    assert torch.equal(read(wav), whole)
    part = read(wav, offset=2.0, duration=0.5)
    torch.testing.assert_close(part, whole[2 * RATE : 2 * RATE + RATE // 2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty: fetch it again"),
        (b"\n<!DOCTYPE html><html>not found</html>" * 20, "is a web page, not sound: download"),
        (b"<html><body>login</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "Git LFS.*`git lfs pull`"),
        ((b"G" + bytes(187)) * 5, "MPEG transport stream.*ffmpeg"),
        (b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat" + bytes(99), "QuickTime file.*ffmpeg"),
        (b"\x56\xe0\x20" + bytes(99), "AAC file.*ffmpeg"),
    ],
)
def test_what_often_stands_in_the_place_of_sound_is_told(tmp_path, content, told):
    (tmp_path / "song.mp3").write_bytes(content)
    with pytest.raises(ValueError, match=f"song.mp3 .*{told}"):
        load_audio(tmp_path / "song.mp3", RATE)


def chunk(name, body, order="<", padded=True):
    return name + struct.pack(order + "I", len(body)) + body + bytes(padded and len(body) % 2)


def wav(*chunks):
    body = b"".join(chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def aiff(*chunks):
    body = b"".join(chunks)
    return b"FORM" + struct.pack(">I", 4 + len(body)) + b"AIFF" + body


# One byte a sample, so that a chunk of an odd number of them is odd; and what says so.
FIRST, SECOND = (bytes(np.random.default_rng(seed).integers(1, 255, 4001).astype(np.uint8)) for seed in (1, 2))
SAYS = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE, 1, 8))
AIFF_SAYS = chunk(b"COMM", struct.pack(">hIhHQ", 1, 4001, 8, 16383 + 15, RATE << 48), ">")


def unsigned(data):
    return (torch.tensor(list(data)) - 128).float() / 128


def signed(data):
    return torch.from_numpy(np.frombuffer(data, np.int8).copy()).float() / 128


def sounds(data):
    return chunk(b"SSND", bytes(8) + data, ">")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (wav(SAYS, chunk(b"data", FIRST), chunk(b"data", SECOND)), FIRST + SECOND),
        (wav(SAYS, chunk(b"data", FIRST, padded=False), chunk(b"data", SECOND, padded=False)), FIRST + SECOND),
        (wav(SAYS, chunk(b"data", FIRST), chunk(b"LIST", b"INFOabc"), chunk(b"data", SECOND)), FIRST + SECOND),
        (wav(SAYS, chunk(b"data", b""), chunk(b"data", SECOND)), SECOND),
        (wav(SAYS, chunk(b"bext", b"abc", padded=False), chunk(b"data", FIRST)), FIRST),
        (wav(chunk(b"JUNK", b"a", padded=False), SAYS, chunk(b"bext", b"abc"), chunk(b"data", FIRST)), FIRST),
        (wav(chunk(b"data", FIRST), SAYS), FIRST),
        (wav(SAYS, chunk(b"data", FIRST, padded=False), chunk(b"LIST", b"INFO" * 3000)), FIRST),
        (2 * wav(SAYS, chunk(b"data", FIRST, padded=False)), 2 * FIRST),
        (wav(SAYS, chunk(b"LIST", b"wavl" + chunk(b"data", FIRST) + chunk(b"data", SECOND))), FIRST + SECOND),
    ],
)
def test_a_wav_file_is_read_whatever_its_chunks(data, wanted):
    audio = read(data)
    assert audio_info(data).frames == len(wanted)
    torch.testing.assert_close(audio, unsigned(wanted), rtol=0, atol=0)
    start = len(wanted) - 100
    torch.testing.assert_close(read(data, offset=start / RATE), unsigned(wanted)[start:], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (aiff(AIFF_SAYS, sounds(FIRST), sounds(SECOND)), FIRST + SECOND),
        (aiff(chunk(b"NAME", b"abc", ">", padded=False), AIFF_SAYS, sounds(FIRST)), FIRST),
        (aiff(AIFF_SAYS, chunk(b"NAME", b"abc", ">", padded=False), sounds(FIRST)), FIRST),
        (aiff(sounds(FIRST), AIFF_SAYS), FIRST),
        (2 * aiff(AIFF_SAYS, sounds(FIRST)), 2 * FIRST),
        (aiff(AIFF_SAYS, b"SSND" + struct.pack(">I", 8) + bytes(8) + FIRST), FIRST),
        (aiff(AIFF_SAYS, b"SSND" + bytes(4) + bytes(8) + FIRST), FIRST),
    ],
)
def test_an_aiff_file_is_read_whatever_its_chunks(data, wanted):
    torch.testing.assert_close(read(data), signed(wanted), rtol=0, atol=0)


def test_silence_between_chunks_of_sound_is_left_out_with_a_word():
    silence = chunk(b"slnt", struct.pack("<I", 1000))
    data = wav(SAYS, chunk(b"LIST", b"wavl" + chunk(b"data", FIRST) + silence + chunk(b"data", SECOND)))
    with pytest.warns(UserWarning, match="chunks of silence"):
        assert torch.equal(load_audio(data), unsigned(FIRST + SECOND))


def test_a_second_chunk_of_sound_that_was_cut_off_says_so():
    data = wav(SAYS, chunk(b"data", FIRST), chunk(b"data", SECOND))[:-1002]
    with pytest.warns(UserWarning, match="states 4001 bytes of sound, and 3000 are there"):
        assert torch.equal(load_audio(data), unsigned(FIRST + SECOND[:3000]))


def test_sound_of_which_nothing_says_what_it_is_is_refused_by_name():
    with pytest.raises(ValueError, match="the given bytes holds no `fmt ` chunk"):
        load_audio(wav(chunk(b"data", FIRST)))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("order", [">", "<"])
def test_an_au_file_of_unknown_size_is_read_to_its_end(size, order):
    header = (b".snd" if order == ">" else b"dns.") + struct.pack(order + "6I", 28, size, 2, RATE, 1, 0)
    assert torch.equal(read(header + FIRST), signed(FIRST))
    whole = header[:8] + struct.pack(order + "I", len(FIRST)) + header[12:] + FIRST
    assert torch.equal(read(whole + whole), signed(FIRST + FIRST))


def test_a_chunk_that_reaches_further_than_a_file_can_is_no_error_of_the_disk():
    data = bytearray(encoded("CAF", sound(0.1), subtype="PCM_16"))
    data[12:20] = b"\xff" * 8  # of the first chunk, before the sound
    with pytest.raises(ValueError, match="the given bytes is no sound"):
        load_audio(bytes(data))
