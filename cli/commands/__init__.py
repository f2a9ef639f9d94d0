"""One file per verb; see the sign on the door of :mod:`cli`."""
