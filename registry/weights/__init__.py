"""TENSORS ON DISK, ONE AT A TIME: safetensors files read and written without ever holding more than one tensor.

Reading goes through the strict header of :mod:`registry.formats.safetensors_header`, so what it refuses is not read
here either; writing lays the header out before the first tensor is made. Imports torch, and knows no adapter: what a
tensor means is said elsewhere. Never here: arithmetic (that is ``numerics``), pickles, directories of adapters.
"""
