"""PLANS: what a verb will do to every tensor, decided from names, shapes and configs before a number is computed.

A plan is a value that the workshop carries out: it says where each tensor of the output comes from and by which formula
it is changed. Whatever has to be refused is refused here, by name and before a byte is written; what the workshop answers is
said in the values of :mod:`registry.plans.results`. Never here: torch, files, numbers of tensors.
"""
