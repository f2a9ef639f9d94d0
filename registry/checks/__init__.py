"""COMPATIBILITY RULES: (manifest, base, profile) → findings. Pure: a rule never raises, reads or prints.

A new rule is a function in the file of its subject and a line in :data:`registry.checks.table.RULES`, with one example that
fits and one that does not.
"""
