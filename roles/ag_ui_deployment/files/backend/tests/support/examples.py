"""The examples of docs/api.md."""

import re
from pathlib import Path

TOP = Path(__file__).parents[6]


def example(language: str, heading: str = "Examples") -> str:
    """Return the only code block in this language under a heading of the page."""
    _, _, rest = (TOP / "docs" / "api.md").read_text().partition(f"\n## {heading}\n")
    section, _, _ = rest.partition("\n## ")
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return str(block)
