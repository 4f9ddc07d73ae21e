"""`fingerpost serve`: a local server for chat, files, fine-tuning and batches, compatible with OpenAI's API."""
