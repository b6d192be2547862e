"""What question 3's two networks are compared by: as a table, and as recorded."""

import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from src.analysis import Evaluation, multiply_adds, parameter_count
from src.common.tables import markdown_table


def describe(
    model: nn.Module,
    evaluation: Evaluation,
    seconds: float,
    inputs: Tensor,
    classes: Sequence[str],
) -> dict:
    """What results.json keeps of a network.

    evaluation: on the test set. seconds: that its training took.
    inputs: 250 images as the model takes them, on its device, which times inference.
    """
    times = []
    for _ in range(4):
        started = time.perf_counter()
        with torch.no_grad():
            model(inputs).cpu()  # which waits for a GPU
        times.append(time.perf_counter() - started)
    of_250 = statistics.median(times[1:])  # the first one warms up
    return {
        "test_accuracy": evaluation.accuracy,
        "interval": evaluation.interval,
        "test_loss": evaluation.loss,
        "ece": evaluation.ece,
        "class_accuracy": dict(zip(classes, evaluation.class_accuracy, strict=True)),
        "seconds": seconds,
        "seconds_per_1000": 4 * of_250,
        "parameters": parameter_count(model),
        "parameters_trained": parameter_count(model, trainable_only=True),
        "multiply_adds": multiply_adds(model, inputs),
    }


def comparison_table(networks: Mapping[str, dict]) -> str:
    """The records of `describe`, by the networks' names, side by side in Markdown."""
    columns = [_column(record) for record in networks.values()]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return markdown_table(["", *networks], rows)


def _column(record: dict) -> dict[str, str]:
    low, high = record["interval"]
    return {
        "test accuracy, 95 % interval": f"{record['test_accuracy']:.2%} ± "
        f"{(high - low) / 2:.2%}",
        "test loss": f"{record['test_loss']:.3f}",
        "calibration error (ECE)": f"{record['ece']:.1%}",
        "parameters trained": f"{record['parameters_trained']:,}",
        "parameters in all": f"{record['parameters']:,}",
        "multiply-adds an image": f"{record['multiply_adds'] / 1e6:,.0f} M",
        "training": f"{record['seconds'] / 60:.1f} min",
        "inference, 1,000 images": f"{record['seconds_per_1000']:.1f} s",
    }
