"""How batches get to the device that computes: devices, threads, prefetching, profiling."""
