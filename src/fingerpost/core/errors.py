"""The errors that the package raises. Every message is one line and ends with how to fix it.

FingerpostError
├── TaskError      task.toml is missing or invalid
├── InputError     a file or value from the user cannot be used
├── TeacherError   the teacher cannot be reached, or its replies cannot be used
├── BudgetError    the next request could exceed the budget
├── ModelError     a model folder cannot be used
└── MissingExtra   an optional dependency is not installed
"""

from __future__ import annotations

from fingerpost.core.printable import printable


class FingerpostError(Exception):
    """Base class of all errors of this package. The command line prints the message and exits with code 2.

    Args:
        message: may hold text from outside; line breaks and control characters are replaced.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable("".join(" " if character.isspace() else character for character in message)))


class TaskError(FingerpostError):
    """task.toml is missing, is not TOML, or has an invalid setting."""


class InputError(FingerpostError):
    """A file, column, row or value from the user cannot be used."""


class TeacherError(FingerpostError):
    """The teacher cannot be reached, refuses the request, or its replies name no label."""


class BudgetError(FingerpostError):
    """The next request could cost more than what is left of the budget."""


class ModelError(FingerpostError):
    """A model folder is missing, incomplete, altered, or of an unknown kind."""


class MissingExtra(FingerpostError):
    """A step needs an optional dependency (an extra) that is not installed."""

    def __init__(self, extra: str, step: str) -> None:
        super().__init__(f"{step} needs the extra '{extra}': pip install 'fingerpost[{extra}]'")
