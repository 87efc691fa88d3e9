"""List the checkpoints that trainings have left, and remove old ones: ``python jobs/checkpoints.py --output models``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs import command
from jobs.configuration import ConfigError
from mian.checkpoint.retention import kept_checkpoints
from mian.checkpoint.training_lock import AlreadyRunningError
from mian.tracking.journal import JOURNALS, Journal

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, list, remove what is asked for; 0 when that is done, 1 with one clear error when not."""
    parser = command.parser(
        "Lists the checkpoints of trainings that were stopped, and those that checkpoint.keep_ended kept. Each line has a state.\n"
        "current: the command that wrote the checkpoints continues from them; init_from can name those of an ended training.\n"
        "old: no command can use them any more, because the code or the samples have changed.\n"
        "unknown: the samples or the settings cannot be read now. Checkpoints of a running training are never removed."
    )
    parser.add_argument(
        "--output",
        default="models",
        metavar="FOLDER",
        help="the folder of the trainings, `output` in their configuration; models by default",
    )
    parser.add_argument("--remove-old", action="store_true", help="remove all checkpoints whose state is old")
    parser.add_argument(
        "--remove", nargs="+", default=[], metavar="KEY", help="remove those with these keys, from the first column"
    )
    options = parser.parse_args(arguments)
    return command.run(lambda: _job(options.output, options.remove_old, options.remove), (AlreadyRunningError,))


def _job(output: str, remove_old: bool, keys: Sequence[str]) -> None:
    if not Path(output).is_dir():
        raise ConfigError(
            f"--output: {output} is not a folder; give the folder of the trainings (`output` in their configuration)"
        )
    kept = {checkpoints.key: checkpoints for checkpoints in kept_checkpoints(Path(output))}
    if unknown := sorted(set(keys) - kept.keys()):
        known = f"choose from {', '.join(kept)}" if kept else "it has no checkpoints at all"
        raise ConfigError(f"--remove: {output} has no checkpoints with the key {', '.join(unknown)}; {known}")
    for checkpoints in kept.values():
        print(
            f"{checkpoints.key}  {checkpoints.model:<10} step {checkpoints.step:>9,}  {checkpoints.bytes / 2**20:>9,.1f} MiB  "
            f"{checkpoints.written:%Y-%m-%d %H:%M}  {checkpoints.state}{': ' * bool(checkpoints.reason)}{checkpoints.reason}  "
            f"({checkpoints.samples})"
        )
    for checkpoints in kept.values():
        if checkpoints.key in keys or (remove_old and checkpoints.state == "old"):
            checkpoints.remove()
            Journal(Path(output) / JOURNALS / checkpoints.key).remove()
            log.info("removed %s", checkpoints.folder)


if __name__ == "__main__":
    sys.exit(main())
