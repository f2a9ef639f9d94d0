"""CONTENT-ADDRESSED BYTES. Immutable, filed under their SHA-256; nothing here knows what they mean.

A new backend is a file with the five methods of :mod:`registry.blobs.protocol`, a line in ``connect.py``, and a
subclass of the contract in ``tests/blobs/contract.py``.
"""
