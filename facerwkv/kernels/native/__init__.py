"""The kernels in C, and the operators that they are registered as."""
