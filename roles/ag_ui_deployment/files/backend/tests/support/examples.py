"""The examples of the pages in docs/."""

import re
from pathlib import Path

TOP = Path(__file__).parents[6]


def example(language: str, heading: str = "Examples", page: str = "api.md") -> str:
    """Return the only code block in this language under a heading of a page."""
    _, _, rest = (TOP / "docs" / page).read_text().partition(f"\n## {heading}\n")
    section, _, _ = rest.partition("\n## ")
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return str(block)
