"""What a folder of fused captions was made with: noted once, compared whenever a run goes on in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal_zoo.files import beside, flush, read_record, write_text

#: What stands in for a key that one of two manifests does not have.
NOTHING = "nothing"
#: Longest text of a value in an error.
SHOWN = 60


def settle(
    path: str | Path, facts: Mapping[str, Any], accepted: Sequence[str] = (), *, fixed: Sequence[str] = ()
) -> None:
    """Note facts in a file, or make sure that it says the same; several processes may do so at once.

    Args:
        path: the file; one process alone creates it, the others compare.
        facts: plain JSON, nested as need be.
        accepted: dotted keys that may differ, with all below them; the file then takes the new values and notes the
            old ones under `changes`.
        fixed: dotted keys that may not, even if they are accepted.

    Raises:
        ValueError: other facts are there; the message names each key that differs with both values.
    """
    target = Path(path)
    plain = json.loads(json.dumps(facts, default=str))
    if not target.exists() and _create(target, plain):
        return
    before = read_record(target)
    changes = before.pop("changes", [])
    differing = list(differences(before, plain))
    never = [one for one in differing if any(_below(one[0], key) for key in fixed)]
    refused = [one for one in differing if one in never or not any(_below(one[0], key) for key in accepted)]
    if refused:
        told = "; ".join(f"{key}: was {_shown(old)}, is {_shown(new)}" for key, old, new in refused)
        take = f", or take the change with accept_changes=[{','.join(dict.fromkeys(map(_top, refused)))}]"
        raise ValueError(
            f"out: {target.parent} was written with other settings ({told}). Go on with the same ones"
            f"{' or' if never else ','} choose another out{'' if never else take}"
        )
    if differing:
        noted = [{"key": key, "was": old} for key, old, _ in differing]
        write_text(target, _text({**plain, "changes": [*changes, *noted]}))


def differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs between two nested values: dotted key, old value, new value."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            inner = f"{key}.{name}".lstrip(".")
            yield from differences(before.get(name, NOTHING), now.get(name, NOTHING), inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{key}[{place}]")
    elif before != now:
        yield key, before, now


def _below(key: str, parent: str) -> bool:
    return key == parent or key.startswith((f"{parent}.", f"{parent}["))


def _top(difference: tuple[str, Any, Any]) -> str:
    return difference[0].partition(".")[0].partition("[")[0]


def _shown(value: Any) -> str:
    text = value if value is NOTHING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def _create(target: Path, facts: Mapping[str, Any]) -> bool:
    """Create the file with its content in one step; False if another process was faster."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = beside(target)
    try:
        draft.write_text(_text(facts), encoding="utf-8")
        flush(draft)
        try:
            os.link(draft, target)
        except FileExistsError:
            return False
        except OSError:
            if target.exists():
                return False
            os.replace(draft, target)  # a file system without hard links: whoever comes last has written the same
    finally:
        draft.unlink(missing_ok=True)
    return True
