"""What is wrong with how a job was started."""


class ConfigError(ValueError):
    """A configuration that cannot be used: which file, which key, what to do."""
