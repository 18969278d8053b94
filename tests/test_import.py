"""`import fast_jukebox` is quick, registers what it promises and needs no optional package."""

import json
import subprocess
import sys

import pytest

OPTIONAL = (
    "datasets",
    "evaluate",
    "torchaudio",
    "torchcodec",
    "gradio",
    "peft",
    "music21",
    "pretty_midi",
    "tinysoundfont",
    "matplotlib",
)


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_import_loads_no_optional_package():
    code = f"""
import json, sys
import fast_jukebox
print(json.dumps([name for name in {OPTIONAL!r} if name in sys.modules]))
"""
    assert json.loads(run(code)) == []


def test_import_loads_neither_torch_nor_transformers():
    code = """
import sys
import fast_jukebox
assert "FastJukeboxModel" in dir(fast_jukebox)
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    assert run(code).strip() == "[]"


ABSENT = f"""
import sys

for name in {OPTIONAL!r}:
    sys.modules[name] = None
"""

BROKEN = f"""
import importlib.machinery, sys

class Broken:
    # Found, as far as anyone who asks whether it is installed can see, and broken when it is imported.
    def find_spec(self, name, path=None, target=None):
        if name in {OPTIONAL!r}:
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise OSError(f"cannot import {{module.__name__}}")

sys.meta_path.insert(0, Broken())
"""

USE = """
import torch
import fast_jukebox
from transformers import AutoConfig, AutoModel
from fast_jukebox import FastJukeboxConfig, FastJukeboxModel

for model_type in ("fast_jukebox_vqvae", "fast_jukebox_prior", "fast_jukebox"):
    assert AutoConfig.for_model(model_type).model_type == model_type
with torch.device("meta"):
    assert isinstance(AutoModel.from_config(FastJukeboxConfig.preset("fastjukebox-mini-9")), FastJukeboxModel)
print("works")
"""


@pytest.mark.parametrize("state", [BROKEN, ABSENT], ids=["broken", "absent"])
def test_import_works_where_optional_packages_are_broken_or_absent(run_afresh, state):
    assert run_afresh(state + USE)[0].strip() == "works"


def test_every_public_name_exists():
    import fast_jukebox

    assert fast_jukebox.__version__ == "0.1.0"
    missing = [name for name in fast_jukebox.__all__ if not hasattr(fast_jukebox, name)]
    assert not missing


def test_the_package_is_typed_and_the_versions_agree(repository_root):
    import fast_jukebox

    assert (repository_root / "src" / "fast_jukebox" / "py.typed").is_file()
    assert f'version = "{fast_jukebox.__version__}"' in (repository_root / "pyproject.toml").read_text(encoding="utf-8")
    assert f"version: {fast_jukebox.__version__}" in (repository_root / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module",
    [
        "generation.request",
        "generation.decoding",
        "generation.plan",
        "generation.estimate",
        "sessions.fingerprint",
        "hub.push",
    ],
)
def test_modules_that_models_are_made_of_may_be_imported_first(run_afresh, module):
    """Importing transformers' models imports ours, and those such modules: they must not do so halfway."""
    run_afresh(f"import fast_jukebox.{module}; from fast_jukebox import FastJukeboxGenerationConfig, FastJukeboxModel")
