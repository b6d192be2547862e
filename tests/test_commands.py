"""`python3 -m src ...` as a user types it, on a small project with fake data."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

import src.__main__ as commands

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals or terminals")


def contents(root: Path) -> dict[str, bytes]:
    """All files of a project but compiled code."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in files
        if path.suffix != ".pyc"
    }


def outputs(path: Path) -> list[str]:
    """The text of each code cell's outputs; "" for a cell that was not executed."""
    texts = []
    for cell in nbformat.read(path, 4).cells:
        pieces = [o.get("text") or o.data["text/plain"] for o in cell.outputs]
        texts.append("".join(pieces).strip())
    return texts


# run ---------------------------------------------------------------------------------


def test_run_executes_and_saves_all_three(project, command):
    left = {"MAMAN13_FAST": "1", "MAMAN13_RETRAIN": "1"}  # by someone
    result = command("run", **left, MPLCONFIGDIR=str(project / "matplotlib"))
    assert list((project / "matplotlib").glob("fontlist*"))  # before any notebook
    assert result.returncode == 0, result.stdout
    saved = sorted((project / "notebooks").iterdir())
    assert [path.stem[:2] for path in saved] == ["q1", "q2", "q3"]
    assert [outputs(path) for path in saved] == [["2", "0 0"]] * 3
    assert (project / "src/fetched").exists()
    printed = result.stdout
    assert printed.index("a fake set") < printed.index("q1_convolution.ipynb ...")
    assert printed.index("Weights: resnet18_") < printed.index("q1_convolution.ipynb ")
    assert printed.index("q1_conv") < printed.index("q2_back") < printed.index("q3_tra")
    assert len(re.findall(r"^  2 cells, \d+\.\d s$", printed, re.MULTILINE)) == 3
    assert "\r" not in printed  # no live line where there is no terminal
    assert "\x1b" not in printed
    assert "data/results.json" in printed
    assert "answers stay as they are: nothing was recorded" in printed


@pytest.mark.parametrize(
    ("args", "executed"),
    [
        (["--only", "q2"], {"q2"}),
        (["--only", "q3", "q1", "q1", "--retrain"], {"q1", "q3"}),
    ],
)
def test_only_the_chosen_are_executed(project, command, args, executed):
    result = command("run", *args)
    assert result.returncode == 0, result.stdout
    run = re.findall(r"^(q\d)\S+ \.\.\.$", result.stdout, re.MULTILINE)
    assert run == sorted(executed)
    shown = ["2", "0 1"] if "--retrain" in args else ["2", "0 0"]
    for path in (project / "notebooks").iterdir():
        expected = shown if path.stem[:2] in executed else ["", ""]
        assert outputs(path) == expected


def test_the_written_answers_follow(project, command):
    (project / "src/commands/answers.py").write_text(
        "def update_answers(): return ['q3.md']"
    )
    result = command("run", "--only", "q1")
    assert result.returncode == 0
    assert "\nq3.md brought up to date\n" in result.stdout
    assert "Weights" not in result.stdout  # which q1 does not use, nor all the data
    assert not (project / "src/fetched").exists()


def test_conclusions_that_no_longer_hold_are_named(project, command):
    (project / "src/commands/answers.py").write_text("def update_answers(): return []")
    (project / "src/commands/conclusions.py").write_text(
        "def doubts(figures): return [f'not borne out by {figures}: a sentence']"
    )
    (project / "data/results.json").write_text('{"a": 1}')
    result = command("run", "--only", "q1")
    assert result.returncode == 0
    last = result.stdout.splitlines()[-1]
    assert last == "WARNING: not borne out by {'a': 1}: a sentence"


@pytest.mark.parametrize(
    ("before", "used", "said"),
    [
        ("resnet18_imagenet1k_v1", "a_stand_in", 2),
        ("a_stand_in", "a_stand_in", 0),
        (None, "a_stand_in", 0),
        ("a_stand_in", "resnet18_imagenet1k_v1", 0),
    ],
)
def test_a_stand_in_that_replaces_other_outputs_is_told(
    project, command, before, used, said
):
    """At the start and at the end, with the way back."""
    if before:
        recorded = json.dumps({"provenance": {"weights": before}})
        (project / "data/results.json").write_text(recorded)
    result = command("run", "--only", "q3", MAMAN13_WEIGHTS=used)
    assert result.returncode == 0, result.stdout
    note = f"NOTE: outputs made with ImageNet's weights ({before}) are replaced"
    assert result.stdout.count(note) == said
    back = "  git checkout -- notebooks answers data/results.json README.md\n"
    assert result.stdout.count(back) == said
    if said:
        assert result.stdout.index(note) < result.stdout.index("q3_transfer")
        assert result.stdout.rindex(note) > result.stdout.index("2 cells")
    assert command("run", "--only", "q1", MAMAN13_WEIGHTS=used).stdout.count(back) == 0


def test_without_weights_the_reason_is_given(project, command):
    before = contents(project)
    result = command("run", "--only", "q3", MAMAN13_WEIGHTS="none")
    assert result.returncode == 1
    assert result.stdout.endswith("error: no weights at all\n")
    assert set(contents(project)) - set(before) == {"src/fetched"}


def test_an_unknown_notebook_is_refused(command):
    result = command("run", "--only", "q2", "q7")
    assert result.returncode == 2
    assert "argument --only: invalid choice: 'q7'" in result.stdout


def test_fast_leaves_everything_as_it_is(project, command, make_notebook, tmp_path):
    look = (
        "import os, pathlib\nroot = pathlib.Path.cwd().parent\n"
        "pathlib.Path('../data/results.json').write_text('{}')\n"
        "pathlib.Path(os.environ['REPORT']).write_text(str(root))\n"
        "assert os.environ['MAMAN13_FAST'] == '1'"
    )
    make_notebook(project / "notebooks/q2_backpropagation.ipynb", look)
    for name in ("sample/a.png", "cache/f.pt", "cifar-10-batches-py/b", "results.json"):
        (project / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "data" / name).write_text("x")
    before = contents(project)
    result = command("run", "--fast", REPORT=str(tmp_path / "report"))
    assert result.returncode == 0, result.stdout
    assert contents(project) == before  # nor was the data fetched
    copy = Path((tmp_path / "report").read_text())
    assert copy != project
    assert not copy.exists()
    assert "q3_transfer_learning" in result.stdout
    assert "nothing here was changed" in result.stdout.splitlines()[-1]


def test_fast_copies_the_sample_but_no_caches(project, monkeypatch):
    kept = ["data/sample/a", "data/weights/w.pt", "data/checkpoints/c", "answers/q.md"]
    left = ["data/cache/f", "data/cifar-10-batches-py/b", "data/x.tmp1", ".venv/lib/p"]
    for name in kept + left:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    monkeypatch.setattr(commands, "ROOT", project)
    with commands._copy() as root:
        assert all(Path(root, name).is_file() for name in kept)
        assert not any(Path(root, name).exists() for name in left)
    assert not Path(root).exists()


def test_a_failing_fast_run_cleans_up_and_shows_why(project, command, make_notebook):
    make_notebook(project / "notebooks/q1_convolution.ipynb", "1 / 0")
    temporary = project / "temporary"
    temporary.mkdir()
    result = command("run", "--fast", TMPDIR=str(temporary))
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stdout
    assert list(temporary.glob("maman13-*")) == []


def test_a_failing_cell_stops_the_run_and_keeps_what_was_finished(
    project, command, make_notebook
):
    second = project / "notebooks/q2_backpropagation.ipynb"
    make_notebook(second, "'fine'", "def broken():\n    return 1 / 0\nbroken()", "3")
    before = contents(project)
    result = command("run")
    assert result.returncode == 1
    assert "error: q2_backpropagation failed in code cell 2 of 3" in result.stdout
    assert "def broken():" in result.stdout
    assert "ZeroDivisionError: division by zero" in result.stdout
    assert 'File "' not in result.stdout  # no traceback of ours
    after = contents(project)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"notebooks/q1_convolution.ipynb", "src/fetched"}

    make_notebook(second, "'repaired'")  # the next run goes on
    assert command("run", "--only", "q2").returncode == 0
    assert outputs(second) == ["'repaired'"]


def test_without_data_the_reason_is_given(project, command):
    (project / "src/cifar10.py").write_text(
        "class DataUnavailable(RuntimeError): ...\n"
        "def load(train): raise DataUnavailable('no source; --fast works')"
    )
    before = contents(project)
    result = command("run")
    assert result.returncode == 1
    assert result.stdout == "error: no source; --fast works\n"
    assert contents(project) == before


def test_flaws_are_pointed_out(project, command, make_notebook):
    make_notebook(
        project / "notebooks/q1_convolution.ipynb",
        "import warnings\nwarnings.warn('ours')",
        "import os\nos.getcwd()",
    )
    result = command("run", "--only", "q1")
    assert result.returncode == 0
    assert "WARNING: q1_convolution.ipynb: left out of cell 1: " in result.stdout
    assert "UserWarning: ours" in result.stdout
    assert "cell 2 names a path of this machine" in result.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "xx_YY.UTF-8"},
        {"LC_ALL": None, "LANG": None, "LC_CTYPE": None, "PYTHONUTF8": None},
    ],
)
def test_a_missing_locale_changes_nothing(project, command, make_notebook, variables):
    path = project / "notebooks/q1_convolution.ipynb"
    make_notebook(path, "print('שלום – × ≤')", "open('x.txt', 'w').write('שלום')")
    result = command("run", "--only", "q1", **variables)
    assert result.returncode == 0, result.stdout
    assert outputs(path) == ["שלום – × ≤", "4"]
    assert (project / "notebooks/x.txt").read_text(encoding="utf-8") == "שלום"


def test_an_error_can_be_printed_in_ascii(project, command, make_notebook):
    make_notebook(
        project / "notebooks/q1_convolution.ipynb", "raise ValueError('שלום')"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = command("run", "--only", "q1", **ascii_only)
    assert result.returncode == 1
    assert "q1_convolution failed in code cell 1 of 1" in result.stdout
    assert "UnicodeEncodeError" not in result.stdout


@POSIX
def test_ctrl_c_stops_the_kernel_and_keeps_what_was_finished(project, make_notebook):
    marker, cleaned = project / "kernel", project / "cleaned"
    second = make_notebook(
        project / "notebooks/q2_backpropagation.ipynb",
        f"import os, pathlib, time\n"
        f"pathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\n"
        f"try:\n    time.sleep(120)\n"
        f"finally:\n    pathlib.Path({str(cleaned)!r}).touch()",
    )
    before = second.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "src", "run"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    deadline = time.monotonic() + 120
    while not (marker.exists() and marker.read_text()):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert printed.splitlines()[-1].startswith("Interrupted: ")
    assert "Traceback" not in printed
    assert cleaned.exists()  # the cell could clean up after itself
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
    assert outputs(project / "notebooks/q1_convolution.ipynb") == ["2", "0 0"]
    assert second.read_bytes() == before


@POSIX
def test_a_terminal_shows_the_live_line(project, make_notebook):
    import pty
    import termios

    make_notebook(
        project / "notebooks/q1_convolution.ipynb",
        "import sys, time\nsys.path.insert(0, '..')\n"
        "from src.common.progress import LiveLog\n"
        "for _ in LiveLog().track(range(4), 'epoch 1'):\n    time.sleep(0.7)",
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 70))
    process = subprocess.Popen(
        [sys.executable, "-m", "src", "run", "--only", "q1"],
        cwd=project,
        stdout=theirs,
    )
    os.close(theirs)
    printed = b""
    while True:
        try:
            printed += os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0
    frames = printed.decode().split("\r")
    live = [frame for frame in frames if "epoch 1:" in frame]
    assert live, frames
    assert all(re.match(r"q1_convolution: cell 1/1 .* 00:0", line) for line in live)
    assert all(len(frame) <= 70 for frame in live)  # no line is wrapped
    assert any(frame.startswith("  1 cells, ") for frame in frames)  # where it was


# What goes wrong around a command ----------------------------------------------------


@pytest.fixture
def ready(monkeypatch):
    """An environment that has everything; returns what it was asked for."""
    asked = []
    monkeypatch.setattr(
        commands.environment, "ensure", lambda **options: asked.append(options)
    )
    return asked


def test_an_unforeseen_error_is_not_hidden(ready, monkeypatch):
    def fail(*args, **options):
        raise OSError("unforeseen")

    monkeypatch.setattr(commands.shutil, "copytree", fail)
    with pytest.raises(OSError, match="unforeseen"):
        commands.main(["run", "--fast"])


@pytest.mark.parametrize("step", ["check_python", "ensure"])
def test_a_failed_set_up_is_one_line(monkeypatch, step):
    def fail(**options):
        raise commands.environment.SetupError("no packages; do this")

    monkeypatch.setattr(commands.environment, step, fail)
    for name in commands.COMMANDS:
        with pytest.raises(SystemExit, match=r"^error: no packages; do this$"):
            commands.main([name])


def test_ctrl_c_in_the_set_up(monkeypatch, capsys):
    def interrupt(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.environment, "ensure", interrupt)
    assert commands.main(["run"]) == 130
    assert "Interrupted" in capsys.readouterr().err


# Other commands ----------------------------------------------------------------------


def test_test_passes_arguments_and_status_on(project, command):
    (project / "tests/test_it.py").write_text(
        "from src.common import project\n"
        "def test_good(): assert project.ROOT.name == 'תרגיל 13'\n"
        "def test_bad(): assert False\n",
        encoding="utf-8",
    )
    assert command("test", "-k", "good").returncode == 0
    assert command("test", "-k", "neither").returncode == 5  # pytest: nothing to run
    everything = command("test")
    assert everything.returncode == 1
    assert "1 failed, 1 passed" in everything.stdout


@pytest.mark.parametrize(
    ("args", "set_before", "found"),
    [([], None, ["1", "PASSIVE"]), ([], "4", ["4", "PASSIVE"]), (["x"], "4", ["4"])],
)
def test_all_tests_run_in_two_processes_of_one_thread(
    monkeypatch, ready, args, set_before, found
):
    called = []
    monkeypatch.setattr(pytest, "main", lambda args: called.append(args) or 3)
    monkeypatch.setattr(commands.os, "environ", {})
    monkeypatch.setattr(commands.os, "chdir", called.append)
    if set_before:
        commands.os.environ["OMP_NUM_THREADS"] = set_before
    assert commands.test(args) == 3
    assert called == [commands.ROOT, args or ["-n", "2", "--dist", "loadfile"]]
    assert ready == [{"everything": True}]
    assert list(commands.os.environ.values()) == found


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (3, 3)])
def test_a_module_is_a_command(project, command, returned, status):
    (project / "src/commands/benchmark.py").write_text(
        f"import json\ndef main(args):\n    print(json.dumps(args))\n"
        f"    return {returned}"
    )
    result = command("benchmark", "--images", "5")
    assert result.returncode == status
    assert json.loads(result.stdout) == ["--images", "5"]


def test_every_command_is_described(command):
    result = command("--help")
    assert result.returncode == 0
    told = " ".join(result.stdout.split())
    for name, (what, _) in commands.COMMANDS.items():
        assert f"{name} {what}" in told


@pytest.mark.parametrize(
    ("name", "module", "everything"),
    [
        ("benchmark", "src.commands.benchmark", False),
        ("vision", "src.vision_tasks.command", False),
        ("submit", "src.commands.submission", True),
    ],
)
def test_what_each_command_calls_and_needs(
    monkeypatch, ready, name, module, everything
):
    called = SimpleNamespace(main=lambda args: [module, *args])
    monkeypatch.setattr(commands.importlib, "import_module", {module: called}.get)
    assert commands.main([name, "--x", "-h"]) == [module, "--x", "-h"]
    assert ready == [{"everything": everything}]


@pytest.mark.parametrize("args", [[], ["dance"]])
def test_an_unknown_command_is_refused(command, args):
    result = command(*args)
    assert result.returncode == 2
    assert "usage: python3 -m src [-h] COMMAND" in result.stdout


def test_what_was_handed_in_offers_no_command_that_it_cannot_carry_out(
    project, command
):
    (project / "tests").rmdir()
    printed = command("--help").stdout
    assert "\n    run " in printed and "\n    benchmark\n" in printed
    for missing in ("test", "vision", "submit"):
        assert f"\n    {missing} " not in printed
    assert command("vision").returncode == 2
