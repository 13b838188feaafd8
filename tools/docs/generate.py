#!/usr/bin/env python3
"""Writes the documentation pages that are generated from the code, or checks that they are up to date.

python tools/docs/generate.py            # writes them
python tools/docs/generate.py --check    # exit status 1 if a page is stale; writes nothing
"""

from __future__ import annotations

import argparse
import sys

import _commands
import _formats
import _python
import _results
import _settings
import _systems
from _markdown import DOCS, NOTICE, page, toctree

CHANGED, MISSING, LEFT_OVER = "changed", "missing", "left over"


def pages() -> dict[str, str]:
    """Returns the generated pages by their path in `shared/docs`."""
    sections = {
        "command-line/index": ("Command line", "commands and their options."),
        "settings/index": ("Settings", "keys of a recipe, with their types, ranges and defaults."),
        "python/index": ("Python", "functions and classes."),
        "files": ("File formats", "files of a run and of a model."),
    }
    contents = "\n".join(f"- [{title}]({name}.md): {text}" for name, (title, text) in sections.items())
    hidden = toctree(*sections).replace(":maxdepth: 1", ":hidden:")
    made = {
        "reference/index.md": page(
            "Commands, settings and Python", "These pages are generated from the code.", contents, hidden
        )
    }
    for module in (_commands, _settings, _python, _formats, _systems, _results):
        made |= module.pages()
    return made


def stale(made: dict[str, str]) -> dict[str, str]:
    """Returns the pages that differ from the code, by path, with the reason."""
    found = {}
    for path, text in made.items():
        file = DOCS / path
        if not file.exists():
            found[path] = MISSING
        elif file.read_text("utf-8") != text:
            found[path] = CHANGED
    for file in DOCS.rglob("*.md"):
        path = file.relative_to(DOCS).as_posix()
        if path not in made and not path.startswith("dist/") and NOTICE in file.read_text("utf-8"):
            found[path] = LEFT_OVER
    return found


def write(made: dict[str, str], found: dict[str, str]) -> None:
    """Writes the stale pages, and removes pages that are no longer generated."""
    for path, reason in found.items():
        file = DOCS / path
        if reason == LEFT_OVER:
            file.unlink()
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(made[path], "utf-8")


def main() -> None:
    """Writes or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check only; exit status 1 if a page is stale")
    options = parser.parse_args()
    made = pages()
    found = stale(made)
    for path, reason in found.items():
        print(f"shared/docs/{path}: {reason}", file=sys.stderr)
    if missing := _systems.missing_pictures():
        print(f"no sample picture yet: {', '.join(missing)} (`tools/docs/samples.py` makes them)", file=sys.stderr)
    if not options.check:
        write(made, found)
    elif found:
        sys.exit(f"{len(found)} generated pages are stale; update them with `python3 tools/dev.py docs --update`")


if __name__ == "__main__":
    main()
