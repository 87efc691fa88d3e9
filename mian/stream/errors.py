"""What goes wrong with samples."""


class StreamError(RuntimeError):
    """The samples cannot be read as the contract says. The message names the file or column, and what to do."""
