"""PEFT ANATOMY: which tensors a method owns, their names and shapes, its rank and scaling. Pure, and without torch.

A method is an :class:`~registry.variants.anatomy.Anatomy` in a file of its own and a line in
:data:`registry.variants.table.ANATOMIES`. A method without one is still recorded: type, tensors, files, base.
"""
