"""`fingerpost serve`: OpenAI's files, fine-tuning, batch and chat endpoints, on your own machine."""
