"""Sphinx configuration; `nox -s docs` builds with every warning an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
# The picture of the page on vision is the one of the demo.
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from figures import numbers

project = "Llama 4 toolkit"
author = "the contributors"
copyright = "the contributors; Apache-2.0"  # noqa: A001 - Sphinx's name for it

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "component_pages",
    "figures",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
# What the pages say in numbers is computed here: {{ name }}.
myst_substitutions = numbers()
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_extensions"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes of dataclasses are documented once, in the class's own section.
napoleon_use_ivar = True

html_theme = "furo"
html_title = "Llama 4 toolkit"
html_show_sourcelink = False
