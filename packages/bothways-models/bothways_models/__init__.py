"""Trained models for Bothways, a directory each in `models/`; `models.json` says what each is for."""

__version__ = "2026.11.27"  # the day on which the training of the weights ended
