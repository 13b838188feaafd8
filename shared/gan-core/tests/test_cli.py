"""The command line of a domain: lists, answers as text and as JSON, errors as one line."""

import io
import json
import logging
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import save_file

import gan_core.cli.program
from gan_core.cli import Answer, main
from gan_core.domain import Domain
from gan_core.errors import GanError

OUT_OF_MEMORY = "out of memory; choose a smaller batch size, smaller networks or fewer samples"


@pytest.fixture
def gan(toy, capsys, monkeypatch, tmp_path):
    """Runs `gan-toy WORDS…` in an empty folder: its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words, domain=toy):
        monkeypatch.setattr(sys, "argv", ["gan", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main(domain)
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


def test_all_domains_are_one_program(gan):
    assert gan("toy", "systems", "--json", domain=None) == gan("systems", "--json")
    status, out, _ = gan("--help", domain=None)
    assert status == 0
    assert "GANs for points" in out


def test_without_any_domain_the_help_says_what_to_install(gan, monkeypatch):
    monkeypatch.setattr(gan_core.cli.program, "find_domains", dict)
    status, out, err = gan("--help", domain=None)
    assert (status, err) == (0, "")
    assert "pip install gan-image" in " ".join(out.split())


def test_systems_and_data_are_tables_and_documents(gan):
    assert gan("systems")[1].splitlines()[1].split() == ["plain", "2014", "generation", "arXiv:0000.00000", "Plain"]
    assert [each["name"] for each in json.loads(gan("systems", "--json")[1])] == ["plain", "critic"]
    assert [each["name"] for each in json.loads(gan("data", "--json")[1])] == ["cloud", "plain-cloud"]


def test_a_domain_without_systems_has_empty_lists(gan):
    empty = Domain(name="none", title="GANs for nothing", package="gan_none")
    assert gan("systems", domain=empty) == (0, "", "gan-none has no systems yet\n")
    assert gan("systems", "--json", domain=empty)[1] == "[]\n"
    assert gan("demo", domain=empty)[2] == "gan-none: gan-none has no demo yet, because it has no systems\n"
    assert gan("train", "x", "--out", "r", domain=empty)[0] == 2


def test_train_writes_a_run_and_prints_its_path(gan, tmp_path):
    status, out, err = gan("train", "plain", "--out", "my run", "--steps", 2)
    assert (status, out) == (0, "trained to step 2: my run (see my run/report.html)\n")
    lines = err.splitlines()
    assert lines[:2] == [
        "cloud: 64 items; 3 classes: 0, 1, 2, not learnt (set `network.num_classes` to 3)",
        "toy/plain 0/2 0%",
    ]
    assert lines[2].startswith("toy/plain 2/2 100%  adversarial  D ")
    assert (tmp_path / "my run" / "model" / "model.safetensors").is_file()


def test_standard_output_contains_only_the_answer(gan):
    for words in (
        ("train", "plain", "--out", "a"),
        ("resume", "a", "--steps", 5),
        ("report", "a"),
        ("doctor", "a"),
        ("evaluate", "a", "--data", "cloud", "-n", 4),
        ("show", "plain"),
        ("demo", "--out", "b"),
        ("generate", "a", "--out", "s"),
    ):
        status, out, _ = gan(*words, "--json")
        assert status == 0
        assert isinstance(json.loads(out), dict)


def test_an_interrupted_training_prints_how_to_continue(gan, monkeypatch):
    import os
    import signal

    from gan_core.training.trainer import Trainer

    played = Trainer.play_step

    def interrupted(self):
        played(self)
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "play_step", interrupted)
    status, out, _ = gan("train", "plain", "--out", "my run", "--steps", 9)
    assert (status, out) == (0, "interrupted by SIGTERM at step 2; continue with: gan-toy resume 'my run'\n")
    assert gan("resume", "my run")[:2] == (0, "trained to step 9: my run (see my run/report.html)\n")


def test_a_rolled_back_training_continues_with_the_proposed_command(gan, monkeypatch):
    import shlex

    from gan_core.training.trainer import Trainer

    played, broken = Trainer.play_step, []

    def breaking(self):
        played(self)
        if self.step == 6 and not broken:
            broken.append(self.game.generator.out.bias.data.fill_(float("nan")))

    monkeypatch.setattr(Trainer, "play_step", breaking)
    every = ["--set", "train.checkpoint_every=2", "--set", "train.log_every=1"]
    status, out, err = gan("train", "plain", "--out", "my run", "--steps", 9, *every)
    assert (status, out) == (1, "")
    line = err.splitlines()[-1]
    assert line.startswith("gan-toy: step 6: the weights of generator.out.bias are not finite; rolled back to step 4; ")
    assert gan("doctor", "my run")[0] == 1
    proposed = line.removesuffix(", or with --set optimizer.clip_norm=1").rpartition("continue with gan-toy ")[2]
    assert proposed == "resume 'my run' --set optimizer.learning_rate=0.0005"
    assert gan(*shlex.split(proposed))[:2] == (0, "trained to step 9: my run (see my run/report.html)\n")
    assert "and has since trained past that step" in gan("doctor", "my run")[1]
    assert gan("resume", "my run", "--set", "network.width=9")[0] == 2


def test_an_error_is_one_line_and_has_a_traceback_only_with_debug(gan):
    assert gan("show", "plian") == (2, "", "gan-toy: unknown system `plian`; did you mean `plain`?\n")
    status, out, err = gan("show", "plian", "--debug")
    assert (status, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("\ngan-toy: unknown system `plian`; did you mean `plain`?\n")


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (GanError("lost\nall"), 1, "lost all"),
        (ZeroDivisionError("oh"), 1, "internal error (ZeroDivisionError): oh; `--debug` shows the traceback"),
        (KeyError(), 1, "internal error (KeyError): no reason given; `--debug` shows the traceback"),
        (MemoryError(), 1, OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."), 1, OUT_OF_MEMORY),
        (OSError(13, "Permission denied", "x"), 2, "x: Permission denied"),
        (OSError(13, "Permission denied", b"x\xff"), 2, "x\\udcff: Permission denied"),
        (OSError(28, "No space left on device", "x"), 1, "x: No space left on device"),
        (OSError(24, "Too many open files"), 1, "Too many open files"),
    ],
)
def test_every_error_is_one_line(gan, toy, monkeypatch, raised, status, words):
    def fails(*_):
        raise raised

    monkeypatch.setattr(Domain, "preset", fails)
    assert gan("show", "plain") == (status, "", f"gan-toy: {words}\n")


def test_an_error_is_free_of_control_characters(gan):
    status, _, err = gan("train", "pla\x1b[31min\x07", "--out", "r")
    assert status == 2
    assert err.startswith("gan-toy: unknown system `pla\\x1b[31min\\x07`; ")


@pytest.mark.parametrize("encoding", ["ascii", "cp1251", "cp932", "utf-8"])
def test_consoles_of_every_encoding_show_an_answer(gan, toy, monkeypatch, encoding):
    text = "50 µm ² Ж \udcff"  # a name with a byte that is no text ends like the last one
    monkeypatch.setattr(toy.tasks, "COMMANDS", {"measure": lambda: Answer({"name": text}, text, [text])})
    for words in (("measure",), ("measure", "--json"), ("--help",), ("show", "Ж²")):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "argv", ["gan", *words])
        with pytest.raises(SystemExit) as end:
            main(toy)
        err.flush()
        assert end.value.code == (2 if "show" in words else 0)
        assert len(err.buffer.getvalue().splitlines()) == (0 if "--help" in words else 1)
        if "--json" in words:
            assert json.loads(out.buffer.getvalue().decode(encoding)) == {"name": text}


def test_closed_and_full_outputs_end_no_command_with_a_traceback():
    code = (
        "import sys; from gan_core.cli import main; from gan_core.domain import Domain\n"
        "main(Domain(name='none', title='GANs for nothing', package='gan_none'))"
    )
    for words, streams, expected in (
        ("systems --json", ">&-", (0, "", "gan-none has no systems yet\n")),
        ("systems --json", "2>&-", (0, "[]\n", "")),
        ("train x --out r", "2>&-", (2, "", "")),
        ("train x --out r", ">&- 2>&-", (2, "", "")),
        ("systems --json", "2>/dev/full", (0, "[]\n", "")),
        (
            "systems --json",
            ">/dev/full",
            (
                1,
                "",
                "gan-none has no systems yet\ngan-none: standard output: cannot be written (No space left on device); "
                "free some space or redirect it\n",
            ),
        ),
    ):
        command = f'"$0" -c "$1" {words} {streams}'
        done = subprocess.run(
            ["/bin/sh", "-c", command, sys.executable, code], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == expected, (words, streams)


def test_too_many_arguments_and_empty_places_are_refused(gan):
    assert gan("systems", "x") == (2, "", "gan-toy: too many arguments: x\n")
    for option in ("--data", "--out", "--recipe"):
        assert gan("train", "plain", option, "") == (2, "", f"gan-toy: `{option}` is empty; give it a value\n")


def test_a_domain_whose_tasks_cannot_be_imported_does_not_stop_the_others(gan, toy, monkeypatch):
    broken = Domain(name="broken", title="GANs", package="gone_entirely", cards=toy.cards)
    monkeypatch.setattr(gan_core.cli.program, "find_domains", lambda: {"broken": broken, "toy": toy})
    status, out, err = gan("toy", "systems", "--json", domain=None)
    assert (status, len(json.loads(out))) == (0, 2)
    assert err == "gan: gan-broken cannot be used (No module named 'gone_entirely')\n"
    status, _, err = gan("systems", domain=broken)
    assert (status, err.count("\n")) == (1, 1)


HOSTILE = "a\x1b]0;x\x07b\x9bc\u202ed"


def test_everything_that_is_printed_is_free_of_control_characters(gan, toy, monkeypatch):
    def speak():
        logging.getLogger("gan_core").warning("log %s", HOSTILE)
        return Answer({HOSTILE: [HOSTILE]}, f"first {HOSTILE}\nsecond", [f"note {HOSTILE}"])

    monkeypatch.setattr(toy.tasks, "COMMANDS", {"speak": speak})
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, as a user has none
    status, out, err = gan("speak")
    safe = "a\\x1b]0;x\\x07b\\x9bc\\u202ed"
    assert (status, out, err) == (0, f"first {safe}\nsecond\n", f"log {safe}\nnote {safe}\n")
    _, out, _ = gan("speak", "--json")
    assert out.removesuffix("\n").isprintable()
    assert json.loads(out) == {HOSTILE: [HOSTILE]}


def test_untrusted_files_print_no_control_characters(gan, toy, tmp_path):
    gan("train", "plain", "--out", "run", "--steps", 1)
    places = {
        "recipe.yaml": (("plain", json.dumps(HOSTILE)[1:-1]),),
        "model/config.json": (('"plain"', json.dumps(HOSTILE)), ('"networks"', json.dumps(HOSTILE)), ("toy", HOSTILE)),
    }
    for file, changes in places.items():
        for old, new in changes:
            folder = tmp_path / "changed"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "run", folder)
            text = (folder / file).read_text()
            assert old in text
            escaped = new if file.endswith("json") else f'"{new}"'
            (folder / file).write_text(text.replace(old, escaped))
            target = folder if file == "recipe.yaml" else folder / "model"
            for words in (
                ("generate", target, "--out", "s"),
                ("doctor", target),
                ("report", target),
                ("resume", target),
            ):
                for _ in (gan(*words, "--debug"), gan(*words)):
                    assert all(line.isprintable() for stream in _[1:] for line in stream.split("\n"))
    save_file({HOSTILE: torch.zeros(1), "fc1.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    (tmp_path / HOSTILE).write_text("x")
    for name in ("w.safetensors", HOSTILE):
        status, out, err = gan("import", "plain/generator", name, "--out", "m")
        assert (status, out) == (2, "")
        assert err.removesuffix("\n").isprintable()


def test_infinite_values_are_null_in_json(gan, toy, monkeypatch):
    answer = Answer({"figures": [math.inf, {"f0": math.nan}, (1.5, "NaN")]})
    monkeypatch.setattr(toy.tasks, "COMMANDS", {"measure": lambda: answer})
    status, out, _ = gan("measure", "--json")
    assert (status, json.loads(out)) == (0, {"figures": [None, {"f0": None}, [1.5, "NaN"]]})
    assert "NaN" not in out.replace('"NaN"', "")


def test_ctrl_c_exits_without_a_message(gan, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Domain, "preset", interrupted)
    assert gan("show", "plain") == (130, "", "")


def test_unknown_commands_and_options_are_refused(gan):
    for words in (("trian",), ("train", "plain", "--outt", "x"), ("train", "plain", "--steps", "many"), ("show",)):
        status, out, err = gan(*words)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1


def test_a_run_whose_data_have_moved_is_resumed_with_their_new_place(gan):
    assert gan("train", "plain", "--out", "a", "--data", "plain-cloud")[0] == 0
    assert gan("resume", "a", "--steps", 5, "--data", "cloud")[0] == 0
    assert "source: cloud" in Path("a/recipe.yaml").read_text()
    status, out, err = gan("resume", "a", "--steps", 6, "--data", "source=cloud", "--data", "target=cloud")
    assert (status, out) == (2, "")
    assert err == "gan-toy: a: was trained on one place, and `data` gives source, target; give the same parts\n"


def test_paths_may_begin_with_the_home_folder(gan, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert gan("train", "plain", "--out=~/a")[:2] == (0, f"trained to step 3: {home}/a (see {home}/a/report.html)\n")
    assert gan("train", "--recipe=~/a/recipe.yaml", "--out=~/b", "--start=generator=~/a")[0] == 0
    assert f"source: {home}/a\n" in (home / "b" / "recipe.yaml").read_text()
    for words in (
        ("resume", "~/a", "--steps", 5),
        ("generate", "~/a", "--out=~/samples", "-n", 2),
        ("evaluate", "~/a", "--data=cloud", "-n", 4, "--keep=~/features"),
        ("report", "~/a"),
        ("report", "~/a", "~/b", "--out=~/both.html"),
        ("doctor", "~/a"),
    ):
        assert gan(*words)[0] == 0, words
    assert {path.name for path in home.iterdir()} == {"a", "b", "samples", "both.html"}
    assert not (tmp_path / "~").exists()


def test_the_default_data_are_those_of_the_system(gan):
    assert json.loads(gan("train", "critic", "--out", "a", "--json")[1])["step"] == 3
    assert "source: cloud" in Path("a/recipe.yaml").read_text()


def test_a_published_checkpoint_becomes_a_model(gan, tmp_path):
    import torch
    from safetensors.torch import save_file

    state = {
        "fc1.weight": torch.randn(5, 3),
        "fc1.bias": torch.zeros(5),
        "fc2.weight": torch.randn(2, 5),
        "fc2.bias": torch.zeros(2),
    }
    save_file(state, "g.safetensors")
    for system in ("plain", "critic"):  # `critic` has a width for each network
        assert gan("import", f"{system}/generator", "g.safetensors", "--out", system)[:2] == (
            0,
            f"{system}/generator in {system}\n",
        )
        assert gan("generate", system, "--out", f"{system}-samples", "-n", 3)[0] == 0


def test_help_loads_no_torch():
    code = (
        "import sys; from gan_core.cli import main; from gan_core.domain import Domain; sys.argv = ['gan', '--help']\n"
        "try:\n    main(Domain(name='none', title='GANs for nothing', package='gan_none'))\n"
        "except SystemExit as end:\n    sys.exit(end.code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_the_version_is_text_and_a_document(gan):
    assert gan("--version") == (0, f"gan-toy {gan_core.__version__}\n", "")
    assert json.loads(gan("--version", "--json")[1]) == {"version": gan_core.__version__}
    assert gan("--version", domain=None)[1] == f"gan {gan_core.__version__}\n"


def test_without_words_the_help_is_shown(gan):
    assert gan() == gan("--help") == gan("--json")


def test_every_argument_and_option_has_a_help(toy):
    group = typer.main.get_command(gan_core.cli.program.build(toy))
    missing = [
        f"{name} {parameter.name}"
        for name, command in group.commands.items()
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert missing == []


def test_lists_fit_the_terminal(gan, toy, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert gan("data")[1].splitlines()[1:] == [
        "cloud        embedded  points: 64 points, 3 classes",
        "plain-cloud  embedded  points: 64 points",
    ]
    monkeypatch.setenv("COLUMNS", "45")
    assert gan("data")[1].splitlines()[1:3] == [
        "cloud        embedded  points: 64 points, 3",
        "                       classes",
    ]
