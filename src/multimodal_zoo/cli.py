"""The command line: `mmzoo <command> [recipe | variant | source] [overrides]`.

This module imports the standard library only; a command's own module is loaded when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module

from multimodal_zoo.commands.errors import is_ours, message
from multimodal_zoo.commands.names import COMMANDS, HYDRA_COMMANDS, MODULES, OPTION_COMMANDS, OVERRIDE_COMMANDS


def main(argv: list[str] | None = None) -> int:
    """Run one command; the return value is the process's exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "_MMZOO_COMPLETE" in os.environ:
        from multimodal_zoo.commands.complete import answer

        return answer()
    if argv[:1] in (["-sc"], ["--shell-completion"]):
        return _guarded(lambda: _completion(argv[1:]))
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        from multimodal_zoo import __version__

        print(f"multimodal_zoo {__version__}")
        return 0
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        print(f"mmzoo: no command {command!r}" + (f"; did you mean {near[0]!r}?" if near else ""), file=sys.stderr)
        print(usage(), file=sys.stderr)
        return 2
    if rest[:1] in (["-h"], ["--help"]):
        print(f"usage: mmzoo {command} {COMMANDS[command][0]} [key=value ...]\n\n{COMMANDS[command][1]}")
        if command in HYDRA_COMMANDS:
            print(
                "\n--cfg job prints the composed configuration; --info and -m are Hydra's; every key can be overridden."
            )
        elif command in OPTION_COMMANDS:
            from multimodal_zoo.commands.options import described

            module = import_module(f"multimodal_zoo.commands.{MODULES.get(command, command)}")
            for heading, options in module.OPTIONS.items():
                print(f"\n{heading}:\n{described(options)}")
            others = "; every other key=value overrides the configuration" if command in OVERRIDE_COMMANDS else ""
            print(f"\nBehind = stands what holds if an option is left out{others}.")
        return 0
    return _guarded(lambda: _run(command, rest))


def usage() -> str:
    """The help text."""
    width = max(len(f"{name} {what}") for name, (what, _) in COMMANDS.items()) + 2
    lines = [f"  {f'{name} {what}':<{width}}{text}" for name, (what, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mmzoo COMMAND [ARGUMENT] [key=value ...]",
            "",
            *lines,
            "",
            "  mmzoo train                                   the quickstart, on a CPU, in minutes",
            "  mmzoo train clip/vit_b32 optim.lr=1e-4 -m seed=1,2,3",
            '  eval "$(mmzoo -sc install=bash)"              shell completion',
        ]
    )


def _completion(words: list[str]) -> int:
    from multimodal_zoo.commands.complete import script

    print(script(words))
    return 0


def _run(command: str, rest: list[str]) -> int:
    if command in HYDRA_COMMANDS:
        from multimodal_zoo.commands.app import run_hydra

        return run_hydra(command, rest)
    return import_module(f"multimodal_zoo.commands.{MODULES.get(command, command)}").main(rest)


def _guarded(action: Callable[[], int]) -> int:
    """Run a command; a message that we wrote is printed as it is, anything unforeseen keeps its traceback."""
    try:
        return action()
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        if os.environ.get("MMZOO_TRACEBACK"):
            raise
        print("mmzoo: interrupted", file=sys.stderr)
        return 130  # as shells say it
    except Exception as error:
        if os.environ.get("MMZOO_TRACEBACK") or not is_ours(error):
            raise
        print(message(error), file=sys.stderr)
        return 1
