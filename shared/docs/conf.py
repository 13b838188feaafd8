"""Settings of the documentation site; `python3 tools/dev.py docs` builds it."""

from __future__ import annotations

import re
from typing import Any

project = "GAN toolkits"
copyright = "the authors of the GAN toolkits"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["dist"]
smartquotes = False  # `--option` keeps its hyphens

# Pages. `$` stays a dollar sign: formulas would load MathJax from another host.
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Docstrings.
default_role = "code"  # `name` in a docstring, as in Markdown
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # `Game` is documented as gan_core.Game, and known as gan_core.play.game.Game too
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
pygments_dark_style = "github-dark"  # the theme's default underlines names, as if they were links
html_title = "GAN toolkits"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

CODE = re.compile(r"(`+[^`]*`+)")


def as_restructured_text(app: object, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Escapes markup of reStructuredText in a docstring, where only backquotes and lists are meant as markup."""
    parts = CODE.split("\n".join(lines))
    for place in range(0, len(parts), 2):
        text = re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", parts[place])
        before = "\\ " if place > 0 and re.match(r"\S", text) else ""  # code may touch any letter, as in `n`²
        after = "\\ " if place + 1 < len(parts) and re.search(r"\S$", text) else ""
        parts[place] = f"{before}{text}{after}"
    lines[:] = "".join(parts).split("\n")


def setup(app: Any) -> None:
    """Connects the hook for docstrings, before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
