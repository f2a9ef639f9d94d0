"""FILE FORMATS: bytes in, values out.

One module per format of a file that strangers hand us. A module takes bytes (or an open binary stream) and ``where``,
the name by which to call them in errors; it gives back plain values, or raises one error of the ``MalformedFileError``
family whose sentence says what was found, where, what was expected and what to do.

Never here: opening a path, the network, a third-party tensor library (no torch, numpy or safetensors: the reader must
not inherit the habits of the library it guards), and opinions about adapters (those are ``registry.checks``).

To add a format: a module named after it, limits as module constants with their reasons, and a test with a table of
hostile inputs beside a Hypothesis law.
"""
