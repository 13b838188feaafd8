"""Links inside archives."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from posixpath import dirname, join, normpath

MAX_HOPS = 40
"""Maximum number of links that are followed one after the other, as in Linux."""


def target_of(name: str, text: str, *, hard: bool = False) -> str:
    """Returns the path in the archive that a link leads to; it starts with `/` or `..` if it leads out of the archive.

    Args:
        name: name of the link.
        text: target as it is stored: relative to the link's folder, or to the top level if the link is hard.
        hard: whether it is a hard link.
    """
    return normpath(text if hard else join(dirname(name), text))


def follow(links: Mapping[str, str], names: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Follows the links of an archive to its files. A link to a folder gives a file for each file in it.

    Args:
        links: paths in the archive that links lead to, by name of the link; see `target_of`.
        names: names of the archive's files.

    Returns:
        The name of the file that a link leads to, by name of the link; and the reasons, by name, of links that lead to
        no file in the archive.
    """
    found: dict[str, str] = {}
    broken: dict[str, str] = {}
    ordered = sorted(names) if links else []
    for name in links:
        target = _end(name, links, names)
        if target.startswith(("/", "..")):
            broken[name] = f"a link that leads out of the archive, to {target}"
        elif target in names:
            found[name] = target
        elif inside := list(_below(target, ordered)):
            found |= {name + each[len(target) :]: each for each in inside}
        else:
            broken[name] = f"a link to {target}, which is not in the archive"
    return found, broken


def _end(name: str, links: Mapping[str, str], names: Collection[str]) -> str:
    """Returns the path that a chain of links leads to; `MAX_HOPS` links are followed."""
    target = links[name]
    for _ in range(MAX_HOPS):
        if target in names:
            break
        parents = [target, *_parents(target)]
        linked = next((each for each in parents if each in links), None)
        if linked is None:
            break
        target = normpath(links[linked] + target[len(linked) :])
    return target


def _parents(path: str) -> Iterator[str]:
    """Yields the folders that contain a path, from the innermost on."""
    while path := dirname(path).rstrip("/"):
        yield path


def _below(folder: str, names: Sequence[str]) -> Iterator[str]:
    """Yields the names below a folder; `names` are sorted."""
    start = "" if folder == "." else f"{folder}/"
    rest = (names[place] for place in range(bisect_left(names, start), len(names)))
    return takewhile(lambda name: name.startswith(start), rest)
