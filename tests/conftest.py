"""Small stand-ins for the whole project, on which the commands are tried."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
FAKE_DATA = """
from pathlib import Path
from types import SimpleNamespace

class DataUnavailable(RuntimeError): ...

def load(train):
    Path(__file__).with_name("fetched").touch()
    return SimpleNamespace(provenance="a fake set")
"""
FAKE_WEIGHTS = """
import os
from types import SimpleNamespace

STANDIN_NAME = "a_stand_in"

class WeightsUnavailable(RuntimeError): ...

def load_pretrained():
    name = os.environ.get("MAMAN13_WEIGHTS", "resnet18_of_imagenet")
    if name == "none":
        raise WeightsUnavailable("no weights at all")
    print(f"Weights: {name}")
    return SimpleNamespace(name=name)
"""
FAKE_ANSWERS = "def update_answers(): raise ValueError('nothing was recorded')"


@pytest.fixture
def make_notebook():
    """A function that writes a notebook with the given code cells."""

    def make(path: Path, *sources: str) -> Path:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return make


@pytest.fixture
def drawn_norms():
    """A function: a model in float64 and eval mode, its BatchNorms' values drawn."""

    def draw(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.running_var):
                    nn.init.uniform_(values, 0.5, 1.5)
                for values in (module.bias, module.running_mean):
                    nn.init.normal_(values, std=0.1)
        return model.double().eval()

    return draw


@pytest.fixture
def overfit():
    """A function that trains a model on one batch; it returns the steps' losses."""

    def train(task, model, example, steps: int, learning_rate: float) -> list[float]:
        optimiser = torch.optim.AdamW(model.parameters(), learning_rate)
        losses = []
        for _ in range(steps):
            loss = task.loss(model(*example.inputs), example.targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    return train


@pytest.fixture
def project(tmp_path, make_notebook):
    """Our commands, tiny notebooks, and fakes of data, weights and answers.

    Its path has a space and Hebrew letters in it.
    """
    root = tmp_path / "תרגיל 13"
    shutil.copytree(
        ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "requirements.txt", root)
    for folder in ("tests", "answers", "data"):
        (root / folder).mkdir()
    (root / "src/cifar10.py").write_text(FAKE_DATA, encoding="utf-8")
    (root / "src/weights.py").write_text(FAKE_WEIGHTS, encoding="utf-8")
    (root / "src/commands/answers.py").write_text(FAKE_ANSWERS, encoding="utf-8")
    show = "import os\nprint(os.environ['MAMAN13_FAST'], os.environ['MAMAN13_RETRAIN'])"
    for name in ("q1_convolution", "q2_backpropagation", "q3_transfer_learning"):
        make_notebook(root / f"notebooks/{name}.ipynb", "1 + 1", show)
    return root


@pytest.fixture
def command(project):
    """A function that runs `python -m src ...` in the project, as a user does.

    Keyword arguments are environment variables; None removes one.
    """

    def run(*args: str, **variables) -> subprocess.CompletedProcess:
        environment = {**os.environ, **variables}
        return subprocess.run(
            [sys.executable, "-m", "src", *args],
            cwd=project,
            env={key: value for key, value in environment.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=300,
        )

    return run
