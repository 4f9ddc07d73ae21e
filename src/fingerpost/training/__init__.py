"""Training: builds the training set, trains a student, exports chat JSONL."""
