"""Seeing inside a model: attention, embeddings, positions, tokens and predictions, on a page anyone can open."""
