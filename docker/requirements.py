"""Print the requirements that pyproject.toml states: of `dlframe` itself, or of its extras."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
groups = {"dlframe": project["dependencies"], **project["optional-dependencies"]}
print(*sorted({requirement for name in sys.argv[1:] for requirement in groups[name]}), sep="\n")
