"""`bothways demo`: what the shipped models answer at once, how a model learns, and tickets sorted by both.

In minutes, on text that is already on this machine, with an ordinary laptop in mind.
"""

from bothways.demo.run import run_demo

__all__ = ["run_demo"]
