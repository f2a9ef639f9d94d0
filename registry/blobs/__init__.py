"""CONTENT-ADDRESSED BYTES. Immutable, filed under their SHA-256; nothing here knows what they mean.

A new backend is a file with what :mod:`registry.blobs.protocol` asks for, a line in ``connect.py``, and a
subclass of the contract in ``tests/blobs/contract.py``.
"""
