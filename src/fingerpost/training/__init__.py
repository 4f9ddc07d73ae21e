"""From labelled questions to a student."""
