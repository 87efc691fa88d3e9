"""What can be wrong with the record of a training."""


class TrackingError(ValueError):
    """A tracking store, experiment or run that can never take the record, or a record that cannot be read."""


class ArtifactStoreError(RuntimeError):
    """The store of a tracking server's artifacts does not answer, or refuses a file."""
