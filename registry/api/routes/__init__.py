"""One file a resource. Every route says which action it is, see :mod:`registry.api.callers`."""
