"""Ranks: collectives over Horovod, compression of gradients, a watchdog for ranks that hang."""
