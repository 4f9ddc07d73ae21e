"""Asking language models: requests, replies, prices."""
