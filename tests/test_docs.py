"""README and the pages beside it: links lead somewhere, commands have the options shown, the first lines make sound."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile
from typer.main import get_command

from fast_jukebox_cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "model_cards/*.md", "src/**/README.md")
    for path in ROOT.glob(pattern)
)


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_commands_have_the_options_that_are_shown():
    shown = set()
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.startswith("fast-jukebox "):
                    continue
                words = shlex.split(line.split(" | ")[0], comments=True)[1:]
                command = get_command(app)
                while hasattr(command, "commands"):
                    command = command.commands[words.pop(0)]
                options = {
                    option for parameter in command.params for option in parameter.opts + parameter.secondary_opts
                }
                told = {word for word in words if re.match(r"--\w", word)}
                assert told <= options, (str(page), line, told - options)
                shown.add(command.name)
    assert {
        "generate",
        "estimate",
        "info",
        "convert",
        "evaluate",
        "plot",
        "label",
        "encode",
        "generate-many",
        "new",
        "resume",
        "export",
    } <= shown


def test_the_first_lines_of_the_readme_make_sound(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert len(list(filter(None, code.splitlines()))) == 3 and "duration=20" in code
    exec(compile(code.replace("duration=20", "duration=0.2"), "README.md", "exec"), {})
    song, rate = soundfile.read(tmp_path / "song.wav")
    assert len(song) == round(0.2 * rate) and abs(song).max() > 0.01
