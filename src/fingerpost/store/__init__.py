"""The databases: a project's questions and verdicts, what calls cost, what the server keeps."""
