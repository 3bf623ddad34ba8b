"""The engine-loading and buffer-allocation core: one session per backend, each from a model file."""
