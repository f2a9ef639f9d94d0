"""WHAT A CI READS: verdicts of ``adapters check`` in the words of other programs. Pure: verdicts in, text out.

To add one: write ``<name>.py`` with a function from a sequence of :class:`~cli.reports.checked.Checked` to the whole text,
and add a line to ``table.py`` and a member to ``Format`` in ``cli/commands/check.py``. What adapters say (names of tensors,
paths) is a stranger's text: ``Checked.findings`` hands it over without control characters, the report escapes what its
own format gives a meaning to.
"""
