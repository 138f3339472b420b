"""Clips and texts to embeddings: encoder, shards, caches, worker processes."""
