"""Shield AG-UI backend: the stream shield:events as AG-UI over SSE."""

__version__ = "1.0.0"
