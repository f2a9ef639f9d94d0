"""THE TENSOR VERBS: adapters and checkpoints in, adapters and checkpoints out, one tensor at a time.

A verb takes open files or iterators of tensors from ``weights``, applies formulas of ``numerics``, and knows what the
tensors of an adapter mean (``variants``, ``checks``). Layouts are brought into the formulas' form here: (r, in) and
(out, r), whatever the file has. The counterpart of ``operations`` on the other side of the wall that keeps torch away
from describing, storing and finding; ``connect.py`` is the door.
"""
