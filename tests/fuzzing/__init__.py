"""Damaged files: seeded mutations of valid tables, corpora and model directories, and what Bothways says of them.

Anything but success or a `UserError` is a fault. `python -m tests.fuzzing --inputs 100000` runs in full.
"""
