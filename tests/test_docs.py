"""The examples of the documentation's pages run, and the harness that runs them does what it says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

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
