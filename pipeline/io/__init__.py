"""Files, folders and the Spark session."""
