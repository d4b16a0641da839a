"""Sphinx configuration; `nox -s docs` builds with every warning an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "Llama 4 toolkit"
author = "the contributors"
copyright = "the contributors; Apache-2.0"  # noqa: A001 - Sphinx's name for it

extensions = ["myst_parser", "component_pages"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_extensions"]

html_theme = "furo"
html_title = "Llama 4 toolkit"
html_show_sourcelink = False
