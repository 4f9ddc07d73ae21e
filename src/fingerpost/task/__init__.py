"""The task definition: task.toml, the prompt that asks for a label, and how replies are read."""
