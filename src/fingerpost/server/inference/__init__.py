"""Inference: chat and routing requests to labels, by the student or the teacher."""
