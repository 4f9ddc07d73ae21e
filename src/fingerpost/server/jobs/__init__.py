"""Background work: fine-tuning jobs, batches, file storage, webhook."""
