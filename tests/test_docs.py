"""The documentation: the examples of its pages run, and its harness and its generators do what they say."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from PIL import Image
from pydantic import Field

from gan_core.play.objectives import OBJECTIVES
from gan_core.play.regularizers import REGULARIZERS
from gan_core.recipe import DataSettings, Recipe, Settings, TrainSettings
from gan_core.testing.examples import Example, examples, run

DOCS = Path(__file__).parent.parent / "shared" / "docs"
BUILT = DOCS / "dist"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if not page.is_relative_to(BUILT)]
GUIDE = DOCS / "guide"
"""Pages whose examples build on each other; gan-core's tests run them (`test_guide.py`)."""
WITH_EXAMPLES = [
    page
    for page in PAGES
    if not page.is_relative_to(GUIDE) and re.search(r"^```(bash|python)$", page.read_text("utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_the_examples_of_a_page_run(page, tmp_path):
    assert run(examples(page.read_text("utf-8")), tmp_path) is None


def test_commands_of_ours_run_in_process_and_others_in_a_shell():
    page = """
```bash
pip install ./packages/gan-image
gan-image train dcgan --out runs/a \\
  --set "data.spec.image_size=[16, 32]"  # a comment
cat a.png | gan-image translate runs/a - --out - > b.png
mkdir photos
gan-image generate runs/a/* --out "$PWD"
```
"""
    assert examples(page) == [
        Example(
            "command", ["gan-image", "train", "dcgan", "--out", "runs/a", "--set", "data.spec.image_size=[16, 32]"]
        ),
        Example("shell", "cat a.png | gan-image translate runs/a - --out - > b.png"),
        Example("shell", "mkdir photos"),
        Example("shell", 'gan-image generate runs/a/* --out "$PWD"'),
    ]


def test_a_block_with_a_here_document_is_one_script():
    block = "cat > recipe.yaml <<EOF\nsystem: dcgan\nEOF\n"
    assert examples(f"```bash\n{block}```\n") == [Example("shell", block)]


def test_blocks_in_lists_are_read_without_their_indentation():
    assert examples("- a step:\n\n  ```python\n  if True:\n      a = 1\n  ```\n") == [
        Example("python", "if True:\n    a = 1\n")
    ]


def test_shown_blocks_and_directives_do_not_run():
    assert examples("```text\nrm -r /\n```\n\n```{note}\nNo example.\n```\n\n```py\nundefined\n```\n") == []


def test_a_comment_replaces_text_of_the_next_block():
    page = "<!-- test: steps=20000 -> steps=2 -->\n\n```python\nsteps=20000\n```\n\n```python\nsteps=20000\n```\n"
    assert [each.source for each in examples(page)] == ["steps=2\n", "steps=20000\n"]


def test_a_replacement_that_does_not_apply_is_an_error():
    with pytest.raises(ValueError, match="does not apply to the block after it"):
        examples("<!-- test: 30000 -> 2 -->\n```python\nsteps=20000\n```\n")


def test_a_block_without_a_language_is_bash():
    assert examples("```\ngan-image systems\n```\n") == [Example("command", ["gan-image", "systems"])]


def test_a_block_in_an_unknown_language_is_an_error():
    with pytest.raises(ValueError, match="a block has the language `shell`; expected one of bash, python"):
        examples("```shell\ngan-image systems\n```\n")


def test_a_change_of_folder_is_an_error():
    with pytest.raises(ValueError, match="run in one folder"):
        examples("```bash\ncd runs\n```\n")


def test_hidden_blocks_run_before_what_follows_and_names_are_shared(tmp_path):
    page = "<!-- setup python\na = 1\n-->\n\n```python\nfrom pathlib import Path\nPath(f'{a}.txt').touch()\n```\n"
    assert run(examples(page), tmp_path) is None
    assert os.listdir(tmp_path) == ["1.txt"]


def test_the_example_that_fails_is_named_with_its_error(tmp_path):
    failed = run(examples("```bash\ntrue\ngan-image train dcgam --out runs/a\n```\n"), tmp_path)
    assert "did you mean `dcgan`?" in failed
    assert failed.endswith("'--out', 'runs/a'] ended with 2\n\nexit status 1")
    assert "boom" in run(examples("```python\nraise ValueError('boom')\n```\n"), tmp_path)
    assert "returned non-zero exit status 3" in run(examples("```bash\nexit 3\n```\n"), tmp_path)
    assert run(examples("```python\nimport os\nos.abort()\n```\n"), tmp_path).endswith("\nexit status -6")


@pytest.fixture
def generator(monkeypatch):
    """Imports a module of tools/docs by name."""
    monkeypatch.syspath_prepend(str(DOCS.parents[1] / "tools" / "docs"))
    return importlib.import_module


class Shape(Settings):
    """A shape.

    It has a size.

    Attributes:
        sides: number of sides; None
            lets the data decide.
    """

    sides: int | None = Field(default=None, ge=3, le=10_000)
    weights: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.5,)
    mode: Literal["cover", "none"] = "cover"
    names: dict[str, str] = Field(default_factory=dict)
    ratio: float = Field(gt=0)


def test_a_table_of_settings_has_types_ranges_defaults_and_meanings(generator):
    assert generator("_settings").fields(Shape, "shape").splitlines() == [
        ":::{container} settings",
        "",
        "| setting | meaning |",
        "| --- | --- |",
        "| `shape.sides`<br>integer in [3, 10,000] or `null`<br>default: `null` | "
        "Number of sides; `null` lets the data decide. |",
        "| `shape.weights`<br>list of numbers in [0, 1)<br>default: `[0.5]` |  |",
        "| `shape.mode`<br>`cover`, `none`<br>default: `cover` |  |",
        "| `shape.names`<br>mapping of names to texts<br>default: `{}` |  |",
        "| `shape.ratio`<br>number &gt; 0<br>required |  |",
        "",
        ":::",
    ]
    assert generator("_markdown").docstring(Shape).text == "A shape.\n\nIt has a size."


def test_every_setting_of_a_recipe_is_on_the_pages_of_settings(generator):
    pages = "\n".join(generator("_settings").pages().values())
    for section, model in {"": Recipe, "train.": TrainSettings, "data.": DataSettings}.items():
        for name in model.model_fields:
            assert f"| `{section}{name}`<br>" in pages
    for name in (*OBJECTIVES, *REGULARIZERS):
        assert f"`{name}`" in pages


def test_every_page_of_settings_says_that_presets_change_defaults(generator):
    module = generator("_settings")
    pages = {path for path, text in module.pages().items() if "`gan-image show SYSTEM` prints all values" in text}
    assert pages == module.pages().keys() - {"reference/settings/objectives.md"}


def test_a_table_of_a_systems_settings_has_networks_and_values_of_presets(generator):
    module = generator("_systems")
    (domain,) = (each for each in module.domains() if each.name == "image")
    page = module.system(domain, next(card for card in domain.cards if card.name == "dcgan"))
    row = next(line for line in page.splitlines() if line.startswith("| `network.latent_dim`"))
    assert row == (
        "| `network.latent_dim`<br>integer in [1, 65,536]<br>of `generator`<br>`paper`: `100`<br>`small`: `64` | "
        "Size of z. |"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Number of samples.  [default: 16; x>=1]", "Number of samples. (default: `16`; at least 1)"),
        ("Seed.  [default: 0; 0<=x<=2147483647]", "Seed. (default: `0`; 0 to 2,147,483,647)"),
        ("[required]", "(required)"),
        ("Folder (default: runs/a).", "Folder (default: runs/a)."),
        ("Write to --out - and <b>.", "Write to `--out` - and \\<b>."),
    ],
)
def test_the_help_of_an_option_becomes_markdown(generator, text, shown):
    assert generator("_commands").meaning(text).strip() == shown


def test_every_option_of_a_command_is_on_its_page(generator):
    page = generator("_commands").pages()["reference/command-line/gan-image.md"]
    for option in ("--data", "--batch-size", "--recipe", "--extractor", "--tile"):
        assert f"| `{option}" in page


def test_arxiv_numbers_become_links_outside_code(generator):
    text = generator("_markdown").page(
        "A", "See arXiv:1511.06434, `arXiv:1511.06434`.\n\n```text\narXiv:1511.06434\n```"
    )
    link = "[arXiv:1511.06434](https://arxiv.org/abs/1511.06434)"
    assert text.endswith(f"See {link}, `arXiv:1511.06434`.\n\n```text\narXiv:1511.06434\n```\n")


def test_stale_pages_are_found_and_written(generator, monkeypatch, tmp_path):
    generate = generator("generate")
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    page = generate.page("A", "text")
    (tmp_path / "old.md").write_text(page)
    (tmp_path / "same.md").write_text(page)
    (tmp_path / "written.md").write_text("# By hand\n")
    (tmp_path / "changed.md").write_text(page + "edited\n")
    made = {"same.md": page, "changed.md": page, "new/a.md": page}
    found = generate.stale(made)
    assert found == {"changed.md": "changed", "new/a.md": "missing", "old.md": "left over"}
    generate.write(made, found)
    assert generate.stale(made) == {}
    assert sorted(path.name for path in tmp_path.rglob("*.md")) == ["a.md", "changed.md", "same.md", "written.md"]


@pytest.mark.parametrize(
    ("markup", "loads"),
    [
        ('<script src="https://cdn.example/a.js"></script>', True),
        ('<script src="_static/a.js"></script>', False),
        ('<a href="https://arxiv.org/abs/1511.06434">', False),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', True),
        ('<link rel="canonical" href="https://docs.example/">', False),
        ("@font-face { src: url(https://fonts.example/a.woff) }", True),
        ("url('data:image/svg+xml,<svg xmlns=\"http://www.w3.org/2000/svg\">')", False),
    ],
)
def test_a_file_from_another_host_is_found(generator, tmp_path, markup, loads):
    (tmp_path / "a.html").write_text(markup)
    found = generator("hosts").findings(tmp_path)
    assert bool(found) is loads
    assert all(finding.startswith("a.html: ") and ".example/a." in finding for finding in found)


def test_a_picture_is_compressed_until_it_is_small(generator, tmp_path):
    samples = generator("samples")
    noise = torch.randint(0, 256, (256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = samples.write(Image.fromarray(noise.numpy()), tmp_path / "noise.webp")
    assert path.stat().st_size <= samples.BYTES
    path = samples.write(Image.new("L", (64, 64), 7), tmp_path / "flat.webp")
    assert set(Image.open(path).convert("L").tobytes()) == {7}
