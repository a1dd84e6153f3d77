"""Uploads of documents: their bytes in a shared directory, their types, and their limits."""
