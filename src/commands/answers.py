"""The written answers: Markdown templates filled with the figures of `results.json`.

A template in `src/answer_templates/` holds the prose, and in it

    [[transfer.test_accuracy|.2%]]    a figure by its path in results.json (a position
                                      in a list counts from 0), in Python's format
    [[derived.overtakes_at]]          what `derived` below works out from the figures
    <!-- if derived.official --> … <!-- else --> … <!-- end -->
                                      text that depends on them

so that no figure is typed, and no sentence can outlive the figures that made it true.
Pages ending in `.he.md` are in Hebrew, from right to left.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from src.analysis import DOUBTED_LABELS
from src.common import results
from src.common.files import write_text
from src.common.project import RESULTS, ROOT

TEMPLATES = Path(__file__).parent / "answer_templates"
README_TEMPLATE = "readme_results.md"
#: The walkthrough is not handed in, so its templates need not be there.
PAGES = tuple(
    sorted({path.name for path in TEMPLATES.glob("*.md")} - {README_TEMPLATE})
)
OFFICIAL_WEIGHTS = "resnet18_imagenet1k_v1"

PLACEHOLDER = re.compile(r"\[\[([^\]|]+)(?:\|([^\]]*))?\]\]")
CHOICE = re.compile(
    r"<!-- if (\S+) -->(.*?)(?:<!-- else -->(.*?))?<!-- end -->", re.DOTALL
)
#: A mark of a choice on a line of its own; the line goes with it.
OWN_LINE = re.compile(r"^(<!-- [^>]* -->)\n", re.MULTILINE)
README_BLOCK = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL)


def render(figures: dict, root: Path = ROOT) -> dict[str, str]:
    """Every page's text by its path, e.g. "answers/q1.md", from the recorded results.

    README.md, in `root`, is among them if it holds a block for the results.
    Raises ValueError, naming page and placeholder, where a figure is not recorded or
    its format does not fit.
    """
    texts = {f"answers/{page}": fill(page, figures) for page in PAGES}
    readme = root / "README.md"
    old = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if README_BLOCK.search(old):
        block = fill(README_TEMPLATE, figures)
        texts["README.md"] = README_BLOCK.sub(lambda _: block, old)
    return texts


def write(root: Path = ROOT) -> list[str]:
    """Bring the pages in `root` up to date with its results; return those changed."""
    changed = _outdated(root)
    for path, text in changed.items():
        write_text(root / path, text)
    return list(changed)


def stale(root: Path = ROOT) -> list[str]:
    """One sentence for each page in `root` that disagrees with its results."""
    try:
        return [
            f"{path} does not agree with data/results.json: `python3 -m src run` "
            "writes it anew"
            for path in _outdated(root)
        ]
    except ValueError as error:
        return [str(error)]


def _outdated(root: Path) -> dict[str, str]:
    """The texts of the pages that are not there or differ."""
    figures = results.read_results(root / RESULTS.relative_to(ROOT))
    return {
        path: text
        for path, text in render(figures, root).items()
        if not (root / path).is_file()
        or (root / path).read_text(encoding="utf-8") != text
    }


# --------------------------------------------------------------------------- filling


def fill(page: str, figures: dict) -> str:
    """One template with its choices made and its placeholders replaced."""
    hebrew = page.endswith(".he.md")
    try:
        values = figures | {"derived": derived(figures, hebrew)}
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{page}: data/results.json lacks {error}; run `python3 -m src run`"
        ) from error

    def choose(match: re.Match) -> str:
        condition, if_true, if_false = match.groups()
        return if_true if _look_up(condition, values, page) else if_false or ""

    def replace(match: re.Match) -> str:
        path, spec = match.groups()
        value = _look_up(path, values, page)
        try:
            return show(value, spec or "")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{page}: {match[0]} with {value!r}: {error}") from error

    text = (TEMPLATES / page).read_text(encoding="utf-8")
    text = CHOICE.sub(choose, OWN_LINE.sub(r"\1", text))
    text = PLACEHOLDER.sub(replace, text)
    return isolate(text) if hebrew else text


def _look_up(path: str, values: dict, page: str) -> object:
    found: object = values
    for part in path.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise ValueError(
                f"{page}: [[{path}]] is not in data/results.json; "
                "run `python3 -m src run`"
            )
    return found


def show(value: object, spec: str) -> str:
    """`format(value, spec)`; but what the e format gives is set as a TeX formula.

    >>> show(3.6e-15, ".1e")
    '3.6 \\cdot 10^{-15}'
    """
    text = format(value, spec)
    if not spec.endswith("e"):
        return text
    mantissa, exponent = text.split("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if value else "0"


LEFT_TO_RIGHT = re.compile(
    r"(?P<block>^```.*?^```$|^\$\$\n.*?^\$\$$)|(?P<inline>`[^`\n]+`|\$[^$\n]+\$)",
    re.MULTILINE | re.DOTALL,
)


def isolate(text: str) -> str:
    """Hebrew Markdown with each piece of code and each formula marked left-to-right.

    Without it a browser would move the brackets of `f(x)`, and the sides of an
    equation, to where they stand in a text from right to left. The space before an
    inline formula is for GitHub, which only then takes it for one.
    """

    def mark(match: re.Match) -> str:
        if match["block"]:
            return f'<div dir="ltr">\n\n{match[0]}\n\n</div>'
        space = " " if match[0].startswith("$") else ""
        return f'<span dir="ltr">{space}{match[0]}</span>'

    return LEFT_TO_RIGHT.sub(mark, text)


# ---------------------------------------------------------------- what figures imply

HEBREW_CLASSES = {
    "airplane": "מטוס",
    "automobile": "מכונית",
    "bird": "ציפור",
    "cat": "חתול",
    "deer": "אייל",
    "dog": "כלב",
    "frog": "צפרדע",
    "horse": "סוס",
    "ship": "ספינה",
    "truck": "משאית",
}
VEHICLES = {"airplane", "automobile", "ship", "truck"}


def derived(figures: dict, hebrew: bool = False) -> dict[str, object]:
    """What the answers say that is not a recorded figure but follows from some.

    Numbers, truth values for choices, and rows of Markdown tables. Raises KeyError
    where a section has been recorded without a figure that it should hold.
    """
    facts: dict[str, object] = {}
    if "convolution" in figures:
        facts |= _from_convolution(figures["convolution"])
    if "gradients" in figures:
        general = figures["gradients"]["general_largest_differences"]
        facts["general_difference"] = max(
            difference for found in general.values() for difference in found.values()
        )
    if "transfer" in figures and "scratch" in figures:
        facts |= _from_comparison(figures)
        # the sample's images have other numbers than those whose labels were judged
        whole = figures["dataset"]["test_images"] == 10_000
        judged = DOUBTED_LABELS if whole else {}
        facts |= _from_mistakes(figures["transfer"], judged, hebrew)
        facts |= _from_data_efficiency(figures["data_efficiency"])
    return facts


def _from_convolution(convolution: dict) -> dict[str, object]:
    return {
        "largest_difference": max(convolution["largest_differences_float64"].values()),
        "faster": convolution["time_ratio"] < 1,
        "leaner": convolution["memory_ratio"] < 1,
        "cost_rows": "\n".join(
            f"| `{layer}` | {cost['time_ratio']:.2f} | {cost['memory_ratio']:.2f} |"
            for layer, cost in convolution["layers"].items()
        ),
    }


def _from_comparison(figures: dict) -> dict[str, object]:
    """Of the two networks: which is ahead in what, and how far."""
    transfer, scratch = figures["transfer"], figures["scratch"]

    def ratio(key: str) -> float:
        pair = sorted((transfer[key], scratch[key]))
        return pair[1] / pair[0]

    def error(network: dict) -> float:
        return 1 - network["test_accuracy"]

    errors = sorted((error(transfer), error(scratch)))
    transfer_wins = transfer["interval"][0] > scratch["interval"][1]
    scratch_wins = scratch["interval"][0] > transfer["interval"][1]
    tie = not (transfer_wins or scratch_wins)
    quicker = transfer["seconds"] < scratch["seconds"]
    official = figures["provenance"]["weights"] == OFFICIAL_WEIGHTS
    return {
        "official": official,
        "input_size": 224 if official else 64,
        "transfer_half_width": (transfer["interval"][1] - transfer["interval"][0]) / 2,
        "scratch_half_width": (scratch["interval"][1] - scratch["interval"][0]) / 2,
        # exactly one of these four; it takes intervals that don't overlap to win
        "transfer_wins": transfer_wins,
        "scratch_wins": scratch_wins,
        "tie_prefers_transfer": tie and quicker,
        "tie_prefers_scratch": tie and not quicker,
        "accuracy_gap": 100 * (errors[1] - errors[0]),  # percentage points
        "mistakes_ratio": errors[1] / errors[0],
        "transfer_quicker_to_train": quicker,
        "training_ratio": ratio("seconds"),
        "scratch_minutes": scratch["seconds"] / 60,
        # no more than a twentieth apart counts as alike
        "computes_alike": ratio("multiply_adds") < 1.05,
        "transfer_computes_more": transfer["multiply_adds"]
        >= 1.05 * scratch["multiply_adds"],
        "scratch_computes_more": scratch["multiply_adds"]
        >= 1.05 * transfer["multiply_adds"],
        "multiply_adds_ratio": ratio("multiply_adds"),
        "transfer_multiply_adds": transfer["multiply_adds"] / 1e6,  # millions
        "scratch_multiply_adds": scratch["multiply_adds"] / 1e6,
        "parameters_ratio": ratio("parameters"),
        "transfer_larger": transfer["parameters"] > scratch["parameters"],
        "transfer_better_calibrated": transfer["ece"] < scratch["ece"],
    }


def _from_mistakes(
    transfer: dict, judged: dict[int, tuple[str, int]], hebrew: bool
) -> dict[str, object]:
    """About the classes, and the ten most blatant mistakes, of the transfer model."""
    accuracy_of, mistakes = transfer["class_accuracy"], transfer["worst_mistakes"]
    classes = list(accuracy_of)

    def name(label: str) -> str:
        return HEBREW_CLASSES[label] if hebrew else label

    def opinion(index: int) -> str:
        if index not in judged:
            return "–"
        label, votes = judged[index]
        return f"{name(label)} ({votes})"

    pairs = [(classes[m["true"]], classes[m["predicted"]]) for m in mistakes]
    (commonest, times), *_ = Counter(pairs).most_common(1)
    easiest = max(classes, key=accuracy_of.get)
    hardest = min(classes, key=accuracy_of.get)
    same_kind = sum((a in VEHICLES) == (b in VEHICLES) for a, b in pairs)
    return {
        "easiest": name(easiest),
        "easiest_accuracy": accuracy_of[easiest],
        "hardest": name(hardest),
        "hardest_accuracy": accuracy_of[hardest],
        "mistake_rows": "\n".join(
            f"| {m['index']} | {name(true)} | {name(predicted)} "
            f"| {m['probability']:.2%} | {m['true_probability']:.2%} "
            f"| {opinion(m['index'])} |"
            for m, (true, predicted) in zip(mistakes, pairs, strict=True)
        ),
        "least_probability": min(m["probability"] for m in mistakes),
        "doubted": sum(m["index"] in judged for m in mistakes),
        "same_kind": same_kind,
        "across_kinds": same_kind < len(pairs),
        "commonest_true": name(commonest[0]),
        "commonest_predicted": name(commonest[1]),
        "commonest_times": times,
    }


def _from_data_efficiency(curves: dict) -> dict[str, object]:
    """Who is ahead with how many images; `curves` names the head first."""
    heads, blocks = curves.values()
    rows, transfer_ahead, scratch_ahead = [], [], []
    for head, block in zip(heads, blocks, strict=True):
        size = head["images_per_class"]
        of_head, of_block = (
            sum(point["accuracies"]) / len(point["accuracies"])
            for point in (head, block)
        )
        rows.append(
            f"| {size:,} | {len(head['accuracies'])} | {of_head:.1%} | {of_block:.1%} |"
        )
        (transfer_ahead if of_head >= of_block else scratch_ahead).append(size)
    crossing = bool(
        transfer_ahead and scratch_ahead and max(transfer_ahead) < min(scratch_ahead)
    )
    return {
        "data_rows": "\n".join(rows),
        "crossing": crossing,
        "last_before": f"{max(transfer_ahead):,}" if crossing else "",
        "overtakes_at": f"{min(scratch_ahead):,}" if crossing else "",
        "transfer_always_ahead": not scratch_ahead,
        "scratch_always_ahead": not transfer_ahead,
        "back_and_forth": bool(transfer_ahead and scratch_ahead) and not crossing,
        "transfer_ahead_at": ", ".join(f"{size:,}" for size in transfer_ahead),
        "scratch_ahead_at": ", ".join(f"{size:,}" for size in scratch_ahead),
    }
