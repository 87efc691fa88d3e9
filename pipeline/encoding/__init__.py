"""From raw samples to ids and numbers in Parquet files; the vocabularies and statistics."""
