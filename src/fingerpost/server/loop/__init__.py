"""The loop: decisions that pass by on the way to an upstream endpoint are learnt, watched, and taken over."""
