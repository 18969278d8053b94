"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has its own threads; together no more than there are cores
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of golden cases: $FAST_JUKEBOX_GOLDEN, or shared/golden beside the repository."""
    named = os.environ.get("FAST_JUKEBOX_GOLDEN")
    folder = Path(named) if named else ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        where = "$FAST_JUKEBOX_GOLDEN" if named else "../shared/golden and $FAST_JUKEBOX_GOLDEN is not set"
        pytest.skip(f"no golden cases: there is no folder at {where}")
    return folder
