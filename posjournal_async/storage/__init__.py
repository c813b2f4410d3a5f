"""Where bytes are kept: the protocols of a backend, real files, and memory."""
