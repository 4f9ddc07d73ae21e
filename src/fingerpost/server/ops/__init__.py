"""Operating the server: access, logs, metrics."""
