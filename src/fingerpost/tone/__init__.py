"""A tone of voice: from a person's texts to a language model that writes like them. Not for labels."""
