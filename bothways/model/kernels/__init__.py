"""The kernels of attention, one a file."""
