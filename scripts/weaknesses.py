"""Writes the list in docs/weaknesses.md from what the code marks with DIFFERS.

A departure from Kubernetes is told where it is made, in a docstring or comment that begins with the mark; this collects
the texts, up to the end of their paragraph. A test fails when the document is not up to date.

Run: python scripts/weaknesses.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "weaknesses.md"
BEGIN = "<!-- written by scripts/weaknesses.py from the code; change it there -->\n"
_MARK = re.compile(r"DIFFERS: ")


def collect(root: Path = ROOT) -> dict[str, list[str]]:
    """Return file -> texts, in order."""
    found: dict[str, list[str]] = {}
    for path in sorted((root / "src" / "tiphys").rglob("*.py")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if _MARK.search(line):
                found.setdefault(str(path.relative_to(root / "src")), []).append(paragraph(lines, number))
    return found


def paragraph(lines: list[str], number: int) -> str:
    """Return the text from the mark in that line to the end of its paragraph, as one line."""
    first = lines[number]
    comment = first.lstrip().startswith("#")
    words = [first.split("DIFFERS: ", 1)[1]]
    if '"""' not in words[0]:
        for line in lines[number + 1 :]:
            if comment != line.lstrip().startswith("#") or _ends(line, comment):
                break
            words.append(line.lstrip().lstrip("#").strip() if comment else line.strip())
            if '"""' in line:
                break
    text = " ".join(words).split('"""')[0].strip()
    return text[0].upper() + text[1:]


def _ends(line: str, comment: bool) -> bool:
    text = line.lstrip().lstrip("#").strip() if comment else line.strip()
    return not text or text.startswith(("Spec:", '"""', "DIFFERS: "))


def render(found: dict[str, list[str]]) -> str:
    """Return the generated part of the document."""
    parts = [BEGIN]
    package = ""
    for path, texts in found.items():
        name = path.split("/")[1]
        if name != package:
            package = name
            parts.append(f"\n### {package}\n")
        parts += [f"- {text} (`{path}`)\n" for text in texts]
    return "".join(parts)


def wanted(document: str) -> str:
    """Return the document with its list written anew."""
    return document.split(BEGIN)[0] + render(collect())


def main() -> int:
    now = DOCUMENT.read_text()
    new = wanted(now)
    if "--check" in sys.argv:
        return int(now != new)
    DOCUMENT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
