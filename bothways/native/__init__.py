"""Compiled code for a CPU: the encoder for inference, all but the products for training; `loading.py` opens it."""
