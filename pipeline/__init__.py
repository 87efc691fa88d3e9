"""All that runs in Spark: from raw click logs to samples. Never imports torch or ``mian``."""
