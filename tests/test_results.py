"""results.json: recorded whole, read back, and what the committed outputs say."""

import json

import nbformat
import pytest

from src.common import results
from src.common.project import DATA, NOTEBOOKS


def test_sections_are_replaced_and_others_kept(tmp_path):
    path = tmp_path / "results.json"
    results.record("q1", path, convolution={"cases": 1, "old": True})
    results.record("q2", path, gradients={"draws": 3})
    results.record("q1", path, convolution={"cases": 2})
    recorded = results.load(path)
    assert recorded["convolution"] == {"cases": 2}
    assert recorded["gradients"] == {"draws": 3}
    assert set(recorded["code"]) == {"q1", "q2"}
    assert "src/results.py" in recorded["code"]["q1"]


def test_nothing_recorded_yet(tmp_path):
    assert results.load(tmp_path / "results.json") == {}


def test_a_damaged_file_says_what_to_do(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="delete it and run `python3 -m src run`"):
        results.load(path)


def test_nan_is_refused_and_the_old_file_kept(tmp_path):
    path = tmp_path / "results.json"
    results.record("q1", path, convolution={"cases": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.record("q1", path, convolution={"cases": float("nan")})
    assert results.load(path)["convolution"] == {"cases": 1}


# What is committed ------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded():
    return json.loads((DATA / "results.json").read_text(encoding="utf-8"))


def printed(name: str) -> str:
    """All text outputs of a committed notebook."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    pieces = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            pieces += [output.get("text", ""), data.get("text/plain", "")]
            pieces.append(data.get("text/markdown", ""))
    return "\n".join(pieces)


def test_question_1_printed_what_it_recorded(recorded):
    text, convolution = printed("q1_convolution.ipynb"), recorded["convolution"]
    means = f"{convolution['time_ratio']:>6.2f}×{convolution['memory_ratio']:>7.2f}×"
    assert means in text
    assert max(convolution["largest_differences_float64"].values()) < 1e-13
    assert convolution["gradcheck"] is True


def test_question_2_printed_what_it_recorded(recorded):
    text, gradients = printed("q2_backpropagation.ipynb"), recorded["gradients"]
    for found in gradients["largest_differences"].values():
        for difference in found.values():
            assert f"{difference:.1e}" in text
    assert f"{gradients['general_configurations']} configurations" in text


def test_question_3_printed_what_it_recorded(recorded):
    text = printed("q3_transfer_learning.ipynb")
    for network in ("transfer", "scratch"):
        values = recorded[network]
        low, high = values["interval"]
        assert f"test accuracy {values['test_accuracy']:.2%}" in text
        assert f"{values['test_accuracy']:.2%} ± {(high - low) / 2:.2%}" in text
        assert f"{values['parameters']:,}" in text
    assert (
        f"{recorded['scratch']['test_accuracy_mirror_averaged']:.2%} with two" in text
    )
    for mistake in recorded["transfer"]["worst_mistakes"]:
        assert f"| {mistake['index']} |" in text


def test_question_3_is_about_the_whole_of_cifar10(recorded):
    assert recorded["dataset"] == {"train_images": 50_000, "test_images": 10_000}
    assert recorded["transfer"]["backbone_unchanged"] is True
    worst = recorded["transfer"]["worst_mistakes"]
    assert len({mistake["index"] for mistake in worst}) == 10
    probabilities = [mistake["probability"] for mistake in worst]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(mistake["predicted"] != mistake["true"] for mistake in worst)
    for network in ("transfer", "scratch"):
        low, high = recorded[network]["interval"]
        assert low < recorded[network]["test_accuracy"] < high
    sizes = [
        [point["images_per_class"] for point in curve]
        for curve in recorded["data_efficiency"].values()
    ]
    assert sizes == [[10, 50, 200, 1000, 4500]] * 2
