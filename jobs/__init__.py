"""Entry points, one a job: read the configuration, call the library, return the exit code."""
