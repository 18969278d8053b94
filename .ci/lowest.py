"""Print the lowest versions that pyproject.toml states, those of all extras too, as constraints for pip."""

import re
import sys
from pathlib import Path

import tomllib

project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
for requirement in [*project["dependencies"], *extras]:
    if requirement.startswith(f"{project['name']}["):  # its own extras, which are listed themselves
        continue
    found = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement)
    if found is None:
        sys.exit(f"{requirement!r} states no lowest version")
    print(f"{found[1]}=={found[2]}")
