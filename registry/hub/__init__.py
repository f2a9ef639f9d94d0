"""The Hugging Face Hub, as a client: the only room that imports ``huggingface_hub``, which is an extra.

Offline mode, cache, endpoint and token are the library's own settings. To ask the Hub for something new, add a file.
"""
