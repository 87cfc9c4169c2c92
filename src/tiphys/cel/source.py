"""Places in the text of an expression, and how issues are printed.

Invariant: the print is cel-go's, since it is what users of Kubernetes read in the answers to a refused rule.
"""

from __future__ import annotations

from bisect import bisect_right

from tiphys.cel.errors import CompileError, Issue

ISSUES_MAXIMUM = 100
_SNIPPET_MAXIMUM = 16_384


class Source:
    """A text whose offsets have lines and columns."""

    __slots__ = ("_starts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0] + [index + 1 for index, character in enumerate(text) if character == "\n"]

    def issue(self, offset: int, message: str) -> Issue:
        """Return an issue at an offset; a negative one stands for no place."""
        if offset < 0:
            return Issue(-1, -1, -1, message)
        line = bisect_right(self._starts, offset)
        return Issue(offset, line, offset - self._starts[line - 1], message)

    def error(self, issues: list[Issue]) -> CompileError:
        """Return the error that lists the issues in the order of their places."""
        ordered = sorted(issues, key=lambda issue: (issue.line, issue.column))
        shown = [self._printed(issue) for issue in ordered[:ISSUES_MAXIMUM]]
        if len(ordered) > ISSUES_MAXIMUM:
            shown.append(f"{len(ordered) - ISSUES_MAXIMUM} more errors were truncated")
        return CompileError("\n".join(shown), tuple(ordered))

    def _printed(self, issue: Issue) -> str:
        head = f"ERROR: <input>:{issue.line}:{issue.column + 1}: {issue.message}"
        if issue.line < 1:
            return head
        start = self._starts[issue.line - 1]
        line = self.text[start:].split("\n", 1)[0].replace("\t", " ")
        if len(line.encode()) > _SNIPPET_MAXIMUM:
            return head
        dots = "".join("." if character.isascii() else "\uff0e" for character in line[: issue.column])
        at = line[issue.column : issue.column + 1]
        return f"{head}\n | {line}\n | {dots}{'^' if not at or at.isascii() else chr(0xFF3E)}"
