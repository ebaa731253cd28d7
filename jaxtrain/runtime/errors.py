"""What a user can mend is told in one line; everything else keeps its traceback."""

LONGEST = 2000  # characters; what a stranger's file says may stand in a message
END = 500  # of them that are kept of its end, where the remedy is


class UserError(ValueError):
    """Bad input: the message names the file or field and the remedy. The command exits with 2."""

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST - END]} … {message[-END:]}"
        super().__init__(message)
