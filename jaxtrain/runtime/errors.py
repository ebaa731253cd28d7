"""What a user can mend is told in one line; everything else keeps its traceback."""


class UserError(ValueError):
    """Bad input: the message names the file or field and the remedy. The command exits with 2."""
