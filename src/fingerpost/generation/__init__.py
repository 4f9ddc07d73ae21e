"""Synthetic questions: planned, written by a model, filtered, labelled by the teacher and measured, in rounds."""
