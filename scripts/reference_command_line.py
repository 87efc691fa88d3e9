"""The page of all arguments of the jobs, from their parsers."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from documentation import without_roles
from reference_text import paragraphs, table

INTRODUCTION = """\
# Command line

Each job is a file of `jobs/`, and a command of the installed package that takes the same arguments.
`--help` prints what this page lists. Start the jobs that use Spark with `spark-submit`.

- `--config FILE` names a YAML file, and each `KEY=VALUE` replaces one of its values. Dots reach
  inside: `history.length=50`. [Configuration](configuration.md) lists all keys.
- A job ends with exit code 0 when it did its work. It ends with 1 after an error, whose message it
  prints to standard error as `error: ...`, and with 2 when the arguments are wrong.
"""


def command_line_page() -> str:
    """The page of all arguments of all jobs."""
    said = configparser.ConfigParser()
    said.read(Path(__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")
    scripts = said["options.entry_points"]["console_scripts"].split("\n")
    commands = {job: command for command, _, job in (line.partition(" = jobs.") for line in scripts if line)}
    jobs = {job.partition(":")[0]: command for job, command in commands.items()}
    modules = {job: importlib.import_module(f"jobs.{job}") for job in jobs}
    rows = [
        [f"[`jobs/{job}.py`](#{job})", f"`{command}`", (modules[job].__doc__ or "").partition(": ")[0]]
        for job, command in jobs.items()
    ]
    parts = [INTRODUCTION, table(["job", "command", "what it does"], rows)]
    for job, module in modules.items():
        parser = _parser(module.main)
        parser.prog = f"jobs/{job}.py"
        parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=96)
        parts += [f"## {job}\n", paragraphs(module.__doc__ or ""), paragraphs(parser.description or "")]
        parts += [f"```text\n{parser.format_usage().strip()}\n```\n", _arguments(parser), _exit_codes(module.main)]
    return "\n".join(parts).rstrip() + "\n"


def _parser(main: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """The parser that a job makes, taken when the job is about to read its arguments."""
    parsers: list[argparse.ArgumentParser] = []

    def take(parser: argparse.ArgumentParser, *_: Any) -> None:
        parsers.append(parser)
        raise SystemExit

    with mock.patch.object(argparse.ArgumentParser, "parse_args", take), contextlib.suppress(SystemExit):
        main([])
    return parsers[0]


def _arguments(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        named, takes_value = bool(action.option_strings), action.nargs != 0
        value = str(action.metavar or action.dest.upper()) if takes_value else ""
        several = "..." if action.nargs in ("*", "+") else ""
        default = f"`{action.default}`" if takes_value and action.default not in (None, []) else ""
        required = action.required and (named or action.nargs != "*")
        choices = (
            f"one of {', '.join(f'`{choice}`' for choice in action.choices)}" if action.choices and not action.metavar else ""
        )
        meaning = [(action.help or "") % {**vars(action), "prog": parser.prog}, choices]
        cells = [" ".join(filter(None, [", ".join(action.option_strings), value, several])), "; ".join(filter(None, meaning))]
        rows.append([f"`{cells[0]}`", "required" if required else default, without_roles(cells[1])])
    return table(["argument", "default", "meaning"], rows)


def _exit_codes(main: Callable[[list[str]], int]) -> str:
    """What ``main`` says of its return value, in a section of its own or behind the first sentence."""
    text = inspect.getdoc(main) or ""
    _, found, codes = text.partition("Returns:\n")
    if not found:
        _, found, codes = text.partition("; 0 ")
        codes = f"0 {codes}"
    return paragraphs(f"Exit code: {' '.join(codes.split())}") if found else ""
