"""What can go wrong, as one tree. Every message is one line and ends with the remedy.

FingerpostError
├── TaskError      task.toml is missing or wrong
├── InputError     a file or value that the user gave cannot be used
├── TeacherError   the teacher cannot be reached, or answers nonsense
├── BudgetError    the next request could exceed the budget
├── ModelError     a model folder cannot be used
└── MissingExtra   an optional part is not installed
"""

from __future__ import annotations


class FingerpostError(Exception):
    """Base of all errors that Fingerpost raises on purpose. The command line prints it and exits with 2."""


class TaskError(FingerpostError):
    """task.toml is missing, is no TOML, or says something that cannot be meant."""


class InputError(FingerpostError):
    """A file, column, row or value that was given cannot be used."""


class TeacherError(FingerpostError):
    """The teacher cannot be reached, refuses, or its replies name no label."""


class BudgetError(FingerpostError):
    """The next request could cost more than what is left of the budget."""


class ModelError(FingerpostError):
    """A model folder is missing, incomplete, altered, or of a kind that is not known."""


class MissingExtra(FingerpostError):
    """A part that is installed as an extra is needed and is not there."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'fingerpost[{extra}]'")
