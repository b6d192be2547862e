"""What is computed once and kept: under a key of all that it depends on, no more.

A key holds a hash of each part by its name ("the recipe", "the code of ResidualBlock"),
so that a miss can say what changed. Each key has a file of its own. The machine and the
versions of libraries are no parts: they change last digits only.
"""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from src.common.code import code_of, text_hash
from src.common.files import write_atomically
from src.common.project import CACHE

Key = dict[str, str]
#: Tensors, numbers, strings, and lists and dicts of them.
State = dict[str, object]


def make_key(
    *, code: Iterable[Callable] = (), without: tuple = (), **parts: object
) -> Key:
    """The key of a result.

    code, without: of `code_of`; the functions that compute it.
    parts: by their names, as `training_images=...`: tensors, dataclasses, transforms,
        networks (their layers, weights and code). TypeError for what has no text.
    """
    code = list(code)
    for part in parts.values():
        for one in part if isinstance(part, list) else [part]:
            if dataclasses.is_dataclass(one):
                code.append(type(one))
            if isinstance(one, nn.Module):
                code += map(type, [*one.modules(), *getattr(one, "transforms", ())])
    hashes = {f"the {n.replace('_', ' ')}": _hash(part) for n, part in parts.items()}
    return hashes | code_of(*code, without=without)


def _hash(value: object) -> str:
    match value:
        case Tensor():
            array = value.detach().cpu().contiguous().numpy()
            numbers = hashlib.sha256(array).hexdigest()
            return text_hash(f"{value.dtype} {tuple(value.shape)}" + numbers)
        case dict():
            return text_hash(repr([(key, _hash(item)) for key, item in value.items()]))
        case list() | tuple():
            return text_hash(repr(list(map(_hash, value))))
        case _ if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            return _hash({name: getattr(value, name) for name in names})
        case _ if inspect.isroutine(value):
            return _hash([value.__qualname__, code_of(value)])
        case nn.Module():  # its text does not name all that it was made with
            public = {n: v for n, v in vars(value).items() if n[0] != "_"}
            public.pop("training")
            parts = dict(value.named_children())
            return _hash([type(value).__qualname__, public, parts, value.state_dict()])
    if " at 0x" in (text := repr(value)):
        raise TypeError(f"{text} can't be part of a key: it names its address")
    return text_hash(text)


def place(name: str, key: Key, folder: Path = CACHE) -> Path:
    """Where the result `name` of this key is kept."""
    return folder / f"{name}-{text_hash(repr(sorted(key.items())))[:12]}.pt"


def kept(
    name: str,
    key: Key,
    compute: Callable[[], State],
    *,
    folder: Path = CACHE,
    committed: Path | None = None,
    anew: bool = False,
    mmap: bool = False,
    quiet: bool = False,
) -> State:
    """What was kept under this key; else it is computed now, and kept.

    If something of this name was kept before, a line says what has changed since.
    committed: a folder in which `name`.pt is looked for first; only `anew` replaces it.
    mmap: what is returned is read from the file as it is used. quiet: no line.
    """
    path = place(name, key, folder)
    public = committed / f"{name}.pt" if committed else path
    if not anew:
        for candidate in dict.fromkeys((public, path)):
            state = read_state(candidate, mmap=mmap) or {}
            if state.pop("key", None) == key:
                return state
        others = [public, *folder.glob(f"{name}-{'?' * 12}.pt")]
        if not quiet and (changed := changes(key, others)):
            said = f"{name}: computed anew, since {changed} changed"
            if committed and public.is_file():
                said += f"; it goes into data/{folder.name}/, the committed one stays"
            print(said, flush=True)
    state = compute()
    path = public if anew else path
    write_state(path, {"key": key, **state})
    if mmap:  # so that the memory is free again
        state = read_state(path, mmap=True)
        del state["key"]
    return state


def changes(key: Key, paths: Iterable[Path]) -> str:
    """How a key differs from the most similar one of some files, in words; or ""."""
    found = [read_state(path, quiet=True, mmap=True) or {} for path in paths]
    keys = [state["key"] for state in found if "key" in state]
    lists = [
        [name for name in key | other if key.get(name) != other.get(name)]
        for other in keys
    ]
    changed = min(lists, key=len, default=[])
    if len(changed) > 4:
        changed[3:] = [f"{len(changed) - 3} more"]
    return " and ".join(changed)


def write_state(path: Path, state: State) -> None:
    """Keep a state, whole or not at all."""
    write_atomically(path, lambda stream: torch.save(state, stream))


def read_state(path: Path, *, quiet: bool = False, mmap: bool = False) -> State | None:
    """What a file holds, on the CPU; None if nothing can be used, with a line then."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
        return dict(state)
    except Exception as error:  # torch.load raises many kinds on a damaged file
        if not quiet:
            why = type(error).__name__  # its text is long, and no help here
            print(f"{path.name} can't be read ({why}); what it held is computed anew")
        return None


def save_progress(path: Path, parts: dict, **more: object) -> None:
    """Keep an unfinished training: its model and optimiser by name, and `more`."""
    write_state(path, {name: part.state_dict() for name, part in parts.items()} | more)


def resume(path: Path, parts: dict) -> State:
    """Bring the parts to where they were; returns `more`, empty if nothing was kept."""
    state = read_state(path) or {}
    for name, part in parts.items() if state else ():
        part.load_state_dict(state.pop(name))
    return state
