"""The world of LLMs: chat endpoints, models run on this machine, prices, recordings of answers."""
