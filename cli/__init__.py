"""The command ``adapters``. Terminal, environment and exit codes live here and nowhere else.

A command is a file in ``commands`` (signature and help on top, the lazy door in the body) and a line in ``main.py``.
Importing ``cli.main`` loads none of torch, SQLAlchemy, FastAPI and huggingface_hub: help and completion are instant.
"""
