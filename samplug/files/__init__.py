"""State files: embeddings and memory banks, and the atomic writes that all files go through."""
