"""The HTTP endpoints: one router per resource, and the error handlers."""
