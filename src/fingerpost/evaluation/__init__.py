"""Evaluation: measures models on the same test rows and compares them."""
