"""Tables in Markdown."""


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; text to the left, numbers to the right.

    The first column counts as text, the others as what they are in the first row.
    """
    numbers = [cell.lstrip("+-−")[:1].isdigit() for cell in rows[0][1:]]
    sides = [":--", *("--:" if number else ":--" for number in numbers)]
    lines = [header, sides, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
