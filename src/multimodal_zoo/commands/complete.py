"""Shell completion: commands, recipes and group options come from file names; dotted keys go to Hydra."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module

SCRIPTS = {
    "bash": """_mmzoo_complete() {
    local IFS=$'\\n'
    COMPREPLY=($(_MMZOO_COMPLETE=bash COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" mmzoo 2>/dev/null))
    local word="${COMP_LINE:0:$COMP_POINT}"; word="${word##* }"
    [[ "$word" == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *= ]] && compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//[.@]}
complete -F _mmzoo_complete mmzoo""",
    "zsh": """autoload -Uz bashcompinit && bashcompinit
_mmzoo_complete() {
    local IFS=$'\\n'
    COMPREPLY=($(_MMZOO_COMPLETE=bash COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" mmzoo 2>/dev/null))
}
complete -F _mmzoo_complete mmzoo""",
    "fish": """function _mmzoo_complete
    _MMZOO_COMPLETE=fish COMP_LINE=(commandline -cp) mmzoo 2>/dev/null
end
complete -c mmzoo -f -a "(_mmzoo_complete)\"""",
}


def script(arguments: list[str]) -> str:
    """The completion script for `install=SHELL`.

    Raises:
        ValueError: a shell that is not bash, zsh or fish.
    """
    shell = arguments[0].removeprefix("install=") if arguments else "bash"
    if shell not in SCRIPTS:
        raise ValueError(f"install={shell}: completion exists for {', '.join(SCRIPTS)}")
    return SCRIPTS[shell]


def answer() -> int:
    """Print the candidates for the line in COMP_LINE, one a line."""
    line = os.environ.get("COMP_LINE", "")
    line = line[: int(os.environ.get("COMP_POINT") or len(line))]
    print("\n".join(candidates(line)))
    return 0


def candidates(line: str) -> list[str]:
    """Candidates for the last word of a command line."""
    from multimodal_zoo.catalogue import list_models, list_recipes
    from multimodal_zoo.commands.names import COMMANDS, HYDRA_COMMANDS, MODULES, OPTION_COMMANDS, OVERRIDE_COMMANDS
    from multimodal_zoo.commands.options import names

    words = line.split(" ")
    word, before = words[-1], [w for w in words[1:-1] if w]
    if not before:
        return _starting(COMMANDS, word)
    command = before[0]
    if command in OPTION_COMMANDS and command not in OVERRIDE_COMMANDS:
        kinds = import_module(f"multimodal_zoo.commands.{MODULES.get(command, command)}").OPTIONS
        if command == "data":
            if len(before) == 1:
                return _starting(kinds, word)
            kinds = {key: kind for key, kind in kinds.items() if key == before[1]}
        return _starting([f"{name}=" for name in names(*kinds.values())], word)
    if len(before) == 1 and "=" not in word:
        subjects = list_recipes() if command == "train" else list_models() if command != "list" else []
        keys = _keys(word) if command in HYDRA_COMMANDS else []
        return _starting(subjects, word) + keys
    return _values(word) if "=" in word else _keys(word)


def _starting(names: Iterable[str], word: str) -> list[str]:
    return sorted(name for name in names if name.startswith(word))


def _values(word: str) -> list[str]:
    from multimodal_zoo.catalogue import list_group

    key, value = word.split("=", 1)
    group = key.lstrip("+~").split("@")[0]
    return [f"{key}={option}" for option in _starting(list_group(group), value)]


def _keys(word: str) -> list[str]:
    """Groups and slots by file name; once a dot is typed, the keys of the quickstart's composition."""
    from multimodal_zoo.catalogue import list_groups

    if "." not in word.split("@")[-1] or "@" in word:
        slots = ("encoder@model.image=", "encoder@model.text=", "tokenizer@model.processor.texts=")
        return _starting([*(f"{group}=" for group in list_groups() if group != "base"), *slots], word)
    from omegaconf import DictConfig, OmegaConf

    from multimodal_zoo.config import compose

    parent, _, _ = word.rpartition(".")
    node = OmegaConf.select(compose("quickstart"), parent)
    if not isinstance(node, DictConfig):
        return []
    names = [f"{parent}.{key!s}" + ("." if isinstance(node._get_node(key), DictConfig) else "=") for key in node]
    return _starting(names, word)
