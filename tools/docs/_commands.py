"""Pages of the command line, from the typer programs."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer.main
from _markdown import code, domains, fence, page, table, toctree

from gan_core.cli import build
from gan_core.domain import Domain

GROUPS = {
    "Systems and data": ("systems", "data", "show"),
    "Training": ("train", "resume", "report", "doctor", "demo"),
    "Models": ("generate", "evaluate", "import", "export"),
}
"""Commands of every domain by section of the page; a domain's own tasks come after them."""

INTRODUCTION = """
Every command also takes `--json` (the result as one JSON document on standard output) and `--debug` (tracebacks).
Results are written to standard output; progress and messages are written to standard error.

| exit status | meaning |
| --- | --- |
| 0 | success; also if training was stopped by Ctrl-C, which writes a checkpoint |
| 1 | the command failed |
| 2 | the arguments or the input were invalid |
| 130 | a command other than training was stopped by Ctrl-C |
"""


def pages() -> dict[str, str]:
    """Returns the pages by path."""
    made = {f"reference/command-line/gan-{domain.name}.md": program(domain) for domain in domains()}
    index = page(
        "Command line",
        "`gan-image …` and `gan image …` are the same program. `--help` after a command shows its options.",
        INTRODUCTION,
        toctree(*(f"gan-{domain.name}" for domain in domains())),
    )
    return made | {"reference/command-line/index.md": index}


def program(domain: Domain) -> str:
    """Returns the page of a domain's program."""
    commands: dict[str, Any] = typer.main.get_command(build(domain)).commands  # type: ignore[attr-defined]
    named = {name for names in GROUPS.values() for name in names}
    groups = GROUPS | {"Tasks": tuple(name for name in commands if name not in named)}
    parts = [f"{domain.title}. [Exit statuses and options of all commands](index.md)."]
    for title, names in groups.items():
        parts += [f"## {title}", *(command(f"gan-{domain.name}", name, commands[name]) for name in names)]
    return page(f"gan-{domain.name}", *parts)


def command(program: str, name: str, command: Any) -> str:
    """Returns the section of one command: its usage, description, arguments and options."""
    context = command.make_context(f"{program} {name}", [], resilient_parsing=True)
    usage = " ".join([f"{program} {name}", *command.collect_usage_pieces(context)])
    rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for parameter in command.params:
        form, text = parameter.get_help_record(context)
        kind = parameter.param_type_name
        form = form.partition(" <")[0] if kind == "argument" else form.replace(" range>", ">")
        rows[kind].append((code(form), meaning(text)))
    parts = [f"### {program} {name}", fence("text", usage), marked(inspect.cleandoc(command.help or ""))]
    parts += [table([kind, "meaning"], lines) for kind, lines in rows.items() if lines]
    return "\n\n".join(parts)


def meaning(text: str) -> str:
    """Returns a parameter's help, with typer's notes at its end, such as `[default: 16; x>=1]`, in words."""
    match = re.fullmatch(r"(.*?) *(?:\[([^\[]*)\])?", text)
    assert match is not None
    words = []
    for remark in match[2].split("; ") if match[2] else ():
        name, _, value = remark.partition(": ")
        words.append(f"default: `{value}`" if name == "default" else BOUNDS.sub(_bounds, remark))
    return f"{marked(match[1])} ({'; '.join(words)})".strip() if words else marked(match[1])


def marked(text: str) -> str:
    """Converts a help text to Markdown, with options as code and other markup escaped."""
    parts = re.split(r"(`[^`]*`|(?<![\w`])--[a-z]\S*(?: [A-Z|]+\b)?)", text)
    parts[::2] = [re.sub(r"([*_<\[])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part if part.startswith("`") else f"`{part}`" for part in parts[1::2]]
    return "".join(parts)


BOUNDS = re.compile(r"^(?:(-?\d+)<=)?x(?:([<>]=)(-?\d+))?$")


def _bounds(match: re.Match[str]) -> str:
    least, sign, bound = match.groups()
    if least is not None:
        return f"{int(least):,} to {int(bound):,}"
    return f"{'at least' if sign == '>=' else 'at most'} {int(bound):,}"
