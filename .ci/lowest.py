"""Print the lowest versions that pyproject.toml states, as constraints for pip."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [name for extra in ("songs", "plots") for name in project["optional-dependencies"].get(extra, [])]
for requirement in [*project["dependencies"], *extras]:
    found = re.match(r"([\w.-]+)>=([\w.]+)", requirement)
    if found is None:
        sys.exit(f"{requirement!r} states no lowest version")
    print(f"{found[1]}=={found[2]}")
