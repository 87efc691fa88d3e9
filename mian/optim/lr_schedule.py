"""The learning rate over a training: a function of the completed share of the planned samples, and of the number of ranks.

The function keeps no state. So stops, resumes and changes of the number of ranks have no later effect: at each share, the rate is the one
that this share and the current number of ranks give.
"""

from __future__ import annotations

import math

from mian.config import OptimizerConfig

#: The fraction of the learning rate that is left at the end of a falling schedule. A warm-up to an unscaled rate begins with it, too. It
#: is not 0, because a step with a rate of 0 would change nothing.
FINAL_SHARE = 0.01


def rate_factor(config: OptimizerConfig, share: float, ranks: int) -> float:
    """The learning rate over that of the configuration.

    With ``learning_rate_scaling: linear`` the warm-up is that of Goyal et al. 2017 (arXiv:1706.02677), section 2.2: from the rate of
    one rank, by as much in each step, to that of all. The schedule begins where the warm-up ends, so that the whole rate is reached,
    whatever the warm-up's length; in the paper, whose schedule falls in stairs, that makes no difference.

    Args:
        config: the settings.
        share: of the planned samples that are done, from 0 to 1.
        ranks: of the world as it is now; where it changes, the scaled rate changes with it in the same step.
    """
    scaled = float(ranks) if config.learning_rate_scaling == "linear" else 1.0
    if share < config.warmup:
        begin = 1.0 if config.learning_rate_scaling == "linear" else FINAL_SHARE
        return begin + (scaled - begin) * share / config.warmup
    return scaled * _left(config.schedule, (share - config.warmup) / (1.0 - config.warmup))


def _left(schedule: str, share: float) -> float:
    """What a schedule leaves of the rate, after a share of the samples that it is for."""
    if schedule == "linear":
        return max(FINAL_SHARE, 1.0 - share)
    if schedule == "cosine":  # Loshchilov and Hutter 2017 (arXiv:1608.03983), Eq. 5, without restarts
        return max(FINAL_SHARE, (1.0 + math.cos(math.pi * share)) / 2)
    return 1.0
