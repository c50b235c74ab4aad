"""Command `completion SHELL`: a script by which bash, zsh or fish complete commands, groups, entries and options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dlframe.cli.commands import COMMANDS, words
from dlframe.config import LISTS, OPTIONS, names
from dlframe.config.settings import option_set, settings
from dlframe.registry import CHOICES, GROUPS, REGISTRIES, STUDY_CHOICES, plugins
from dlframe.registry.parameters import Parameter, literals
from dlframe.types import ConfigError, command_line, nearest, say

BASH = r"""
_dlframe() {
    local line="${COMP_LINE:0:COMP_POINT}" i
    local -a typed own found
    read -ra typed <<< "$line"
    [[ $line == *[[:space:]] ]] && typed+=("")
    for ((i = 0; i < ${#typed[@]}; i++)); do
        own+=("${typed[i]}")
        [[ ${typed[i]##*/} == dlframe ]] && break
    done
    ((i < ${#typed[@]} - 1)) || return
    mapfile -t found < <("${own[@]}" completion words "${typed[@]:i+1}" 2> /dev/null)
    local word="${typed[-1]}"
    local cut="${word%"${word##*=}"}"
    [[ $COMP_WORDBREAKS == *=* ]] && found=("${found[@]#"$cut"}")
    [[ ${#found[@]} -eq 1 && ${found[0]} == *[=.] ]] && compopt -o nospace
    COMPREPLY=("${found[@]}")
}
complete -o bashdefault -o default -F _dlframe dlframe python python3
"""

ZSH = r"""
_dlframe() {
    local -a own typed found
    local i=${words[(I)(*/|)dlframe]}
    (( i )) || { _default; return }
    own=("${(@)words[1,i]}")
    typed=("${(@)words[i+1,CURRENT]}")
    found=("${(@f)$("${own[@]}" completion words "${typed[@]}" 2> /dev/null)}")
    [[ -n $found ]] && compadd -S '' -a found || _default
}
compdef _dlframe dlframe python python3
"""

FISH = r"""
function __dlframe
    set -l typed (commandline -opc)
    set -l i (contains -i dlframe (string replace -r '.*/' '' -- $typed)); or return
    set -l after $typed[(math $i + 1)..]
    $typed[1..$i] completion words $after (commandline -ct) 2> /dev/null
end
complete -c dlframe -a '(__dlframe)'
complete -c python -n 'contains dlframe (commandline -opc)' -f -a '(__dlframe)'
complete -c python3 -n 'contains dlframe (commandline -opc)' -f -a '(__dlframe)'
"""

SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""Shell -> its script."""


def main(arguments: Sequence[str]) -> int:
    """Print the script for a shell, to be read at its start: in ~/.bashrc, `source <(python -m dlframe completion bash)`.

    `completion words WORD ...` prints what the last word may become, a line each; the scripts ask it.

    Raises:
        ConfigError: There is no such shell.
    """
    if arguments[:1] == ["words"]:
        found = sorted(set(candidates(arguments[1:])))
        if found:
            say(*found)
        return 0
    shell = arguments[0] if len(arguments) == 1 else ""
    if shell not in SHELLS:
        received = " ".join(arguments) or "nothing"
        hint = nearest(shell, SHELLS) or f" Try: {command_line('completion', 'bash')}"
        raise ConfigError(f"completion: must be one of {', '.join(SHELLS)}. Received: {received}.{hint}")
    say(*SHELLS[shell].strip().split("\n"))
    return 0


def candidates(typed: Sequence[str]) -> Iterator[str]:
    """Yield what the last word of a command line may become. Nothing is imported but what reads signatures.

    Args:
        typed: The words after the program, of which the last is begun, or empty.
    """
    plugins.discover()
    *before, word = typed or [""]
    verb = next((text for text in before if text in COMMANDS), "") if before and "=" not in before[0] else ""
    groups = (*REGISTRIES, *CHOICES, *STUDY_CHOICES)
    if verb in ("help", "completion"):
        known = words() if verb == "help" else list(SHELLS)
    elif verb == "list":
        known = list(groups)
    elif verb == "show":
        known = [*settings.entries, *(f"{group}=" for group in groups)] if "=" not in word else _values(word, before)
    elif verb and not COMMANDS[verb].trains:
        options = getattr(COMMANDS[verb].load(), "Options", None) if word else None
        known = [f"{name}=" for name in option_set(verb, options).parameters] if options else []
    elif "=" in word:
        known = _values(word, before)
    else:
        known = [] if before else words()
        known += _keys(word, before)
    yield from (text for text in known if text.startswith(word))


def _keys(word: str, before: Sequence[str]) -> Iterator[str]:
    """Yield the keys that a word may become: of the groups and a run's own options, or in a group those of what is chosen."""
    if "." not in word:
        yield from (f"{name}=" for name in (*settings.get("run").parameters, *GROUPS, *CHOICES))
        yield from (f"{group}." for group in (*GROUPS, *OPTIONS))
        return
    yield from (f"{key}=" for key in _options(word.partition(".")[0], before))


def _options(group: str, before: Sequence[str]) -> dict[str, Parameter]:
    """Return the options of a group, or of the entry of it that was typed: dotted key -> option."""
    if group in OPTIONS:
        return {f"{group}.{name}": option for name, option in settings.get(group).parameters.items()}
    chosen = next((text.partition("=")[2] for text in before if text.startswith(f"{group}=")), "")
    entries = GROUPS[group].entries if group in GROUPS else {}
    among = [entries[chosen]] if chosen in entries else entries.values()
    return {
        f"{group}.{f'{entry.name}.' if group in LISTS else ''}{name}": option
        for entry in among
        for name, option in entry.parameters.items()
    }


def _values(word: str, before: Sequence[str]) -> Iterator[str]:
    """Yield `key=value` for each value of a key that has few: names of a group, choices, true and false."""
    key, _, value = word.partition("=")
    if key in REGISTRIES or key in CHOICES or key in STUDY_CHOICES:
        cut = max(value.rfind(","), value.rfind("[")) + 1
        yield from (f"{key}={value[:cut]}{name}" for name in names(key))
        return
    option = _options(key.partition(".")[0], before).get(key) or settings.get("run").parameters.get(key)
    if option:
        yield from (f"{key}={text}" for text in ("true", "false") if option.annotation is bool)
        yield from (f"{key}={text}" for text in literals(option.annotation))
