"""What is decided: task.toml, the prompt, the form of replies."""
