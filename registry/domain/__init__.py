"""THE DICTIONARY. Frozen values that name what the project is about; no I/O, nothing third-party.

A new value goes into the file named for its idea. Two words for one thing, or one word for two, is a bug.
"""
