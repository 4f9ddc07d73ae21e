"""A project folder: every step as a method, what to do next, and erasing messages from it."""

from fingerpost.project.project import STUDENT, Project, Status

__all__ = ["STUDENT", "Project", "Status"]
