"""All that runs in Spark: from raw click logs to samples. Of ``mian`` it imports ``mian.contract`` and ``mian.fingerprint`` alone."""
