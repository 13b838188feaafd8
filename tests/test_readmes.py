"""Every command and every example in the READMEs runs, from the first to the last, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gan_core.testing.examples import examples, run

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", *sorted(ROOT.glob("shared/*/README.md")), *sorted(ROOT.glob("packages/*/README.md"))]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name if readme.parent != ROOT else "root")
def test_the_examples_of_a_readme_run(readme, tmp_path):
    assert run(examples(readme.read_text("utf-8")), tmp_path) is None


def test_installing_lines_name_folders_that_exist():
    for readme in READMES:
        for line in readme.read_text("utf-8").splitlines():
            if line.startswith("pip install"):
                paths = [word for word in shlex.split(line, comments=True) if word.startswith("./")]
                assert paths
                missing = [path for path in paths if not (ROOT / path.partition("[")[0] / "pyproject.toml").is_file()]
                assert missing == []


def test_links_lead_to_files_that_exist():
    for readme in READMES:
        prose = re.sub(r"^```.*?^```", "", readme.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", prose):
            assert (readme.parent / target).exists(), f"{readme}: {target}"
