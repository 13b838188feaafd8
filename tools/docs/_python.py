"""Pages of the Python API, which list the public names. Sphinx inserts their docstrings when it builds the site."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from types import ModuleType

from _markdown import domains, fence, page, summary, toctree

import gan_core

FUNCTIONS = ("create", "train", "resume", "load", "evaluate", "open_data", "load_reference")
"""Functions that every domain package offers."""
FOLDERS = ("play", "data", "nn", "measure", "runs", "models")
"""Folders of gan_core whose modules are documented: those that the author of a system or a dataset uses."""


def pages() -> dict[str, str]:
    """Returns the pages by path."""
    packages = {"gan_core": core(), **{domain.package: package(import_module(domain.package)) for domain in domains()}}
    modules = {f"gan_core.{name}": folder(import_module(f"gan_core.{name}")) for name in FOLDERS}
    modules |= {name: module_page(import_module(name)) for name in ("gan_core.recipe", "gan_core.training.regime")}
    introduction = "Public names of the packages, and the modules that authors of systems, datasets and metrics use."
    index = page(
        "Python", introduction, "## Packages", toctree(*packages), "## Modules", toctree(*dict(sorted(modules.items())))
    )
    made = {f"reference/python/{name}.md": text for name, text in (packages | modules).items()}
    return made | {"reference/python/index.md": index}


def package(module: ModuleType) -> str:
    """Returns the page of a domain package's public names."""
    names = [name for name in FUNCTIONS if hasattr(module, name)]
    names += sorted(name for name in getattr(module, "__all__", ()) if name not in names and name != "DOMAIN")
    return page(module.__name__, summary(module), *(directive(module.__name__, name) for name in names))


def core() -> str:
    """Returns the page of gan_core's public names, in alphabetical order."""
    names = sorted((name for name in dir(gan_core) if not name.startswith("_")), key=str.lower)
    return page("gan_core", summary(gan_core), *(directive("gan_core", name) for name in names))


def directive(module: str, name: str) -> str:
    """Returns the directive that documents a public name."""
    item = getattr(import_module(module), name)
    if inspect.isclass(item):
        kind = "autoexception" if issubclass(item, Exception) else "autoclass"
    else:
        kind = "autofunction" if callable(item) and inspect.isroutine(item) else "autodata"
    return fence("{eval-rst}", f".. {kind}:: {module}.{name}")


def folder(package: ModuleType) -> str:
    """Returns the page of a package's modules."""
    found = [
        info.name
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not info.name.rpartition(".")[2].startswith("_")
    ]
    parts = [part for name in found for part in section(import_module(name))]
    return page(package.__name__, summary(package), *parts)


def module_page(module: ModuleType) -> str:
    """Returns the page of one module."""
    return page(module.__name__, *section(module)[1:])


def section(module: ModuleType) -> list[str]:
    """Returns the section of a module: its own classes and functions, except those on the page of gan_core.

    Modules without own definitions have no section.
    """
    public = [getattr(gan_core, name) for name in dir(gan_core)]
    names = [
        name
        for name, item in vars(module).items()
        if not name.startswith("_") and getattr(item, "__module__", None) == module.__name__ and callable(item)
    ]
    own = [name for name in names if not any(getattr(module, name) is item for item in public)]
    if not own:
        return []
    text = f".. automodule:: {module.__name__}\n   :members: {', '.join(own)}"
    return [f"## {module.__name__}", fence("{eval-rst}", text)]
