"""All ranks train one model: on the same samples, with the same settings and code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mian.checkpoint.keys import trained_days
from mian.config import TrainConfig
from mian.contract import Contract
from mian.distributed.collectives import Ranks
from mian.fingerprint import package_fingerprint

_MISSING = "not there"


class DisagreementError(RuntimeError):
    """A rank has other settings, another contract or other code than rank 0."""


def check_agreement(ranks: Ranks, config: TrainConfig, contract: Contract) -> None:
    """Compare what each rank was told with what rank 0 was; all ranks call this before their first other exchange.

    Where samples and output lie, threads, devices and time-outs may differ from rank to rank.

    Args:
        ranks: who takes part.
        config: this rank's settings.
        contract: that this rank has read; days that the training does not use may differ.

    Raises:
        DisagreementError: on all ranks. It names the ranks that differ from rank 0, and the first difference.
    """
    if ranks.size == 1:
        return
    mine = {
        "settings": _same_on_all(config),
        "contract": json.loads(trained_days(config, contract).to_json()),
        "code": package_fingerprint("mian"),
    }
    digest = hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()
    digests = ranks.gather_objects(digest)
    differing = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if not differing:
        return
    first_rank = ranks.broadcast_object(mine if ranks.is_first else None)
    assert first_rank is not None, "rank 0 sends it"
    first_difference = ranks.gather_objects(_first_difference(mine, first_rank))[differing[0]]
    named = f"rank{'s' * (len(differing) > 1)} {', '.join(map(str, differing))}"
    raise DisagreementError(
        f"{named} of {ranks.size} would train another model than rank 0: on rank {differing[0]} {first_difference}; start all ranks with "
        "the same settings, on the same samples, with the same release"
    )


def _same_on_all(config: TrainConfig) -> dict[str, Any]:
    """What decides the weights, and which exchanges there are."""
    checkpoint = config.checkpoint.model_dump(mode="json", include={"enabled", "every_steps"})
    tables = config.tables.model_dump(mode="json")
    return {**config.settings(), "tables": tables, "checkpoint": checkpoint, "log_every": config.log_every}


def _first_difference(mine: Mapping[str, Any], first_rank: Mapping[str, Any]) -> str:
    """Of what this rank has from what rank 0 has; empty where there is none."""
    own, first = dict(_flat("", mine)), dict(_flat("", first_rank))
    for name in {**first, **own}:
        value, expected = own.get(name, _MISSING), first.get(name, _MISSING)
        if value != expected:
            kind, _, place = name.partition(".")
            what = {"settings": f"the setting {place}", "contract": f"the contract's {place}"}.get(kind, "the code's fingerprint")
            return f"{what} is {_shown(value)}, on rank 0 {_shown(expected)}"
    return ""


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values that are nested in another, by names such as ``contract.days[3].rows``."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _flat(f"{name}[{number}]", inner)
    else:
        yield name, value


def _shown(value: Any) -> str:
    return value if value == _MISSING else json.dumps(value)
