"""The log with a live line: in a kernel, in a terminal, in a file."""

from types import SimpleNamespace

import nbformat
import pytest

from src.commands import notebooks
from src.common import progress
from src.common.progress import LiveLog
from src.common.project import ROOT

SET_UP = f"""import sys, time
sys.path.insert(0, {str(ROOT)!r})
from src.common.progress import LiveLog"""


@pytest.fixture
def in_kernel(tmp_path, make_notebook, monkeypatch):
    """A function that runs cells in a kernel.

    It returns each cell's outputs, and all the texts that were shown on the way.
    """
    seen = []

    monkeypatch.setattr(
        notebooks.tqdm, "set_postfix_str", lambda self, text: seen.append(text)
    )

    def run(*sources: str):
        path = make_notebook(tmp_path / "a.ipynb", SET_UP, *sources)
        notebooks.execute(path)
        return [cell.outputs for cell in nbformat.read(path, 4).cells[1:]], seen

    return run


def text(outputs: list) -> str:
    """The text of the only output, which is a plain one."""
    (output,) = outputs
    assert output.output_type == "display_data"
    assert set(output.data) == {"text/plain"}
    return output.data["text/plain"]


def test_a_notebook_keeps_the_finished_lines_only(in_kernel):
    (outputs,), seen = in_kernel(
        "log = LiveLog()\nlog.line('epoch  loss')\n"
        "for epoch in range(2):\n"
        "    for _ in log.track(range(4), f'epoch {epoch}'):\n"
        "        time.sleep(0.6)\n"
        "    log.line(f'{epoch}  0.5')",
    )
    assert text(outputs) == "epoch  loss\n0  0.5\n1  0.5"
    live = "\n".join(seen)
    assert "epoch 0:" in live  # while it ran, the terminal showed the bars
    assert "epoch 1:" in live


def test_a_loop_that_is_left_early_leaves_no_live_line(in_kernel):
    (left, failed), _ = in_kernel(
        "log = LiveLog()\nlog.line('a')\n"
        "for i in log.track(range(9), 'left'):\n"
        "    time.sleep(0.6)\n"
        "    if i == 2: break",
        "log = LiveLog()\nlog.line('b')\n"
        "def broken():\n"
        "    time.sleep(0.6)\n"
        "    yield 1\n"
        "    time.sleep(0.6)\n"
        "    raise ValueError\n"
        "try:\n"
        "    for _ in log.track(broken(), 'failed'): pass\n"
        "except ValueError: log.line('over')",
    )
    assert text(left) == "a"
    assert text(failed) == "b\nover"


def test_a_log_continues_where_it_began(in_kernel):
    (first, second, third), _ = in_kernel(
        "log = LiveLog()\nlog.line('one')", "log.line('two')", "silent = LiveLog()"
    )
    assert text(first) == "one\ntwo"
    assert second == third == []


def test_a_live_line_alone_is_not_saved(in_kernel):
    (outputs,), _ = in_kernel(
        "for _ in LiveLog().track(range(3), 'x'): time.sleep(0.6)"
    )
    assert outputs == []


def test_loss_and_accuracy_are_shown_while_it_runs_and_not_saved(in_kernel):
    (trained, fetched), seen = in_kernel(
        "log = LiveLog()\nlog.line('epoch')\n"
        "for i in log.track(range(3), 'training'):\n"
        "    log.status(f'loss {2 - i}.5, accuracy {40 + i}%')\n"
        "    time.sleep(0.6)",
        "log = LiveLog()\nlog.status('fetching 139 MB')\ntime.sleep(0.1)\nlog.status()",
    )
    assert text(trained) == "epoch"
    assert fetched == []
    live = "\n".join(seen)
    assert "loss 2.5, accuracy 40%" in live and "loss 1.5, accuracy 41%" in live
    assert "fetching 139 MB" in live


def test_what_ended_leaves_an_output_that_nothing_draws(monkeypatch):
    """By hand nobody removes it: no kind of data, hence no height in a notebook."""
    shown = []
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **_: shown.append(data) or handle
    )
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data))
    log = LiveLog()
    assert list(log.track("ab", "letters")) == ["a", "b"]
    assert "letters" in shown[0]["text/plain"] and shown[-1] == {}
    log.line("kept")
    assert shown[-1] == {"text/plain": "kept"}


def test_the_status_outside_of_a_loop_is_printed_elsewhere(capsys):
    log = LiveLog()
    log.status("fetching")
    log.status()
    for _ in log.track(range(2), "working"):
        log.status("loss 1.23, accuracy 45%")
    printed = capsys.readouterr()
    assert printed.out == "fetching\n"
    assert "working" in printed.err


def test_elsewhere_the_lines_are_printed_and_the_bar_goes_to_stderr(capsys):
    log = LiveLog()
    log.line("header")
    items = [object(), object()]
    passed = []
    for item in log.track(items, "working"):
        passed.append(item)
        log.line(f"line {len(passed)}")
    assert passed == items  # the very same objects
    printed = capsys.readouterr()
    assert printed.out == "header\nline 1\nline 2\n"
    assert "working" in printed.err


def test_the_total_of_a_generator_can_be_given(capsys):
    assert list(LiveLog().track(iter("abc"), "letters", total=3)) == list("abc")
    printed = capsys.readouterr()
    assert "/3" in printed.err
    assert printed.out == ""


def test_a_log_that_keeps_no_lines(capsys):
    log = LiveLog(keep=False)
    log.line("header")
    assert list(log.track(range(3), "counting")) == [0, 1, 2]
    log.line("finished")
    assert capsys.readouterr().out == ""
