"""Tables in Markdown, as whole text."""

from src.common.tables import markdown_table


def test_numbers_are_at_the_right():
    header = ["layer", "kind", "parameters", "change", "sign"]
    rows = [["a", "ReLU", "0", "−1.5 %", "+2"], ["7", "1", "x", "", "-3"]]
    assert markdown_table(header, rows) == (
        "| layer | kind | parameters | change | sign |\n"
        "| :-- | :-- | --: | --: | --: |\n"
        "| a | ReLU | 0 | −1.5 % | +2 |\n"
        "| 7 | 1 | x |  | -3 |"
    )
