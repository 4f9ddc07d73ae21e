"""Work in the background: fine-tuning jobs, batches, files, webhooks."""
