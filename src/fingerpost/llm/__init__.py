"""Clients for language models: requests, replies, rate limits, batches, prices."""
