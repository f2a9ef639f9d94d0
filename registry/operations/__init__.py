"""THE VERBS, torch-free. One file, one verb, a story in numbered steps.

A verb asks only for what it touches (``blobs``, ``catalog``, a path) and decides something; a look-up that decides
nothing is asked of the catalog itself. Refusals come before anything is written.
"""
