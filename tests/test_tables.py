"""Tables in Markdown, as whole text."""

from src.common.tables import markdown_table, side_by_side


def test_numbers_are_at_the_right():
    header = ["layer", "kind", "parameters", "change", "sign"]
    rows = [["a", "ReLU", "0", "−1.5 %", "+2"], ["7", "1", "x", "", "-3"]]
    assert markdown_table(header, rows) == (
        "| layer | kind | parameters | change | sign |\n"
        "| :-- | :-- | --: | --: | --: |\n"
        "| a | ReLU | 0 | −1.5 % | +2 |\n"
        "| 7 | 1 | x |  | -3 |"
    )


def test_what_is_compared_stands_side_by_side():
    columns = {"head": {"loss": "0.5", "size": "big"}}
    columns["blocks"] = {"size": "small", "loss": "0.25"}
    assert side_by_side(columns) == (
        "|  | head | blocks |\n"
        "| :-- | --: | --: |\n"
        "| loss | 0.5 | 0.25 |\n"
        "| size | big | small |"
    )
