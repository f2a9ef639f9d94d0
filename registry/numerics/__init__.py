"""FORMULAS: tensors in, tensors and numbers out. Imports torch and nothing of ours.

One file per subject. A formula stands in its docstring with the shapes it is about, never changes what it was given, and
computes in float64 where its result is compared with a rounding. Never here: files, names of tensors, configs.

Notation: A is (r, in), B is (out, r), s a scaling, the delta s·B·A is (out, in).
"""
