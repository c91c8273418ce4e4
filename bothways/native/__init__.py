"""Compiled code: the encoder for inference, attention and dropout for training on a CPU; `loading.py` opens it."""
