"""Nets: what Bothways shows to its users and leaves on their disks, as it was before the code was moved about.

Everything here goes through the public surface (`bothways.cli.main`, `import bothways as bw`, files); the few internal
names that are needed are in `adapter.py`. A golden file that is meant to change is written anew by
`python -m tests.nets.regenerate NAME`.
"""
