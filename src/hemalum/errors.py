"""Errors that a user can cause."""


class HemalumError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what to do.

    The command line prints the line and ends with exit code 2; `--debug` shows the traceback.
    """


class ToldElsewhereError(HemalumError):
    """Another process of the same run has failed first and says why; the command line stays silent about this one."""
