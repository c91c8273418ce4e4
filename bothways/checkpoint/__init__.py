"""Hugging Face and sentence-transformers directories, in and out."""
