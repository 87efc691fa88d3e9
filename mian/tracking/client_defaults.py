"""What MLflow's client is told by whoever does not wait minutes for a server that is not there, as its own defaults do."""

CLIENT_DEFAULTS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""By variable of the environment, for those that are not set."""
