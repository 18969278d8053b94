import re


def test_help_names_every_option_at_once(run):
    for command, words in (("evaluate", ("--songs", "--embedding", "--valence")), ("plot", ("--kind", "--seconds"))):
        found = run(command, "--help")
        assert found.exit_code == 0
        assert all(word in found.output for word in words)


def test_bad_words_are_one_line_with_the_option(run):
    (run.folder / "song.wav").write_bytes(b"")
    for arguments, pattern in (
        (["evaluate", "embedded"], "--songs"),
        (["evaluate", "embedded", "--songs", "x", "--num-samples", "1"], "--num-samples"),
        (["evaluate", "embedded", "--songs", "x", "--clap", "model"], "--clap"),
        (["evaluate", "a/x", "b/x", "--songs", "x"], "different names"),
        (["evaluate", "embedded", "--songs", "x", "--embedding", "ears"], "musicnn_mtt"),
        (["plot", "song.wav", "--output", "a.gif"], r"--output.* \.png or \.svg"),
        (["plot", "song.wav", "--kind", "pie"], "--kind"),
        (["plot", "song.wav", "--seconds", "0"], "--seconds"),
        (["plot", "song.wav", "song.wav"], "different names"),
    ):
        found = run(*arguments)
        assert found.exit_code == 2, (arguments, found.output)
        assert re.search(pattern, found.output), (arguments, found.output)
        assert "Traceback" not in found.output
