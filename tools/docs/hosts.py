#!/usr/bin/env python3
"""Checks that the built pages do not load files from other hosts, such as fonts, scripts or pictures.

python tools/docs/hosts.py shared/docs/dist/html
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REQUEST = re.compile(
    r"""<(?:script|img|iframe|audio|source)\b[^>]*\ssrc=["']?(?:https?:)?//[^>]*"""
    r"""|<link\b(?=[^>]*(?:stylesheet|icon|preload|preconnect))[^>]*href=["']?(?:https?:)?//[^>]*"""
    r"""|(?:url\(|@import\s)["']?(?:https?:)?//[^)]*"""
)
"""Markup through which a browser loads a file from another host; links that a reader follows are not matched."""


def findings(folder: Path) -> list[str]:
    """Returns the pages in a folder that load a file from another host, with the markup."""
    return [
        f"{file.relative_to(folder)}: {found[0]}"
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".html", ".css") and (found := REQUEST.search(file.read_text("utf-8")))
    ]


if __name__ == "__main__":
    found = findings(Path(sys.argv[1]))
    if found:
        sys.exit("\n".join(["these pages load files from other hosts:", *found]))
