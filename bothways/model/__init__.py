"""Packed batch → hidden states → scores."""
