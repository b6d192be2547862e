"""What is computed once and kept: under a key of all that it depends on, no more.

A key names its parts ("the recipe", "the code of ResidualBlock") and holds a hash of
each, so that a miss can say what changed. What is kept under one key never takes the
place of what is kept under another.
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
    *,
    code: Iterable[Callable] = (),
    without: tuple = (),
    network: nn.Module | None = None,
    **parts: object,
) -> Key:
    """The key of a result.

    code: the functions that compute it; what they use counts too, but for `without`
        (see `code_of`).
    network: one that takes part with the weights it has: its layers, weights and code.
    parts: by their names, as `training_images=...`: tensors, dataclasses, transforms.
        Raises TypeError for one that can't be told from another by its text.
    """
    code = [*code, *filter(dataclasses.is_dataclass, map(type, parts.values()))]
    if network is not None:
        parts["layers of the network"] = repr(network)
        parts["weights of the network"] = network.state_dict()
        code += dict.fromkeys(map(type, network.modules()))
    names = [f"the {name.replace('_', ' ')}" for name in parts]
    hashes = map(_hash, parts.values())
    return dict(zip(names, hashes, strict=True)) | code_of(*code, without=without)


def _hash(value: object) -> str:
    match value:
        case Tensor():
            array = value.detach().cpu().contiguous().numpy()
            layout = f"{value.dtype} {tuple(value.shape)}"
            return text_hash(layout + hashlib.sha256(array).hexdigest())
        case dict():
            return text_hash(repr([(key, _hash(item)) for key, item in value.items()]))
        case list() | tuple():
            return text_hash(repr(list(map(_hash, value))))
        case _ if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            return _hash({name: getattr(value, name) for name in names})
        case _ if inspect.isroutine(value):
            return _hash(code_of(value))
        case nn.Module():
            kinds = dict.fromkeys(map(type, value.modules()))
            return _hash([repr(value), value.state_dict(), code_of(*kinds)])
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
    say: Callable[[str], None] = print,
) -> State:
    """What was kept under this key; else it is computed now, and kept.

    committed: a folder in which `name`.pt is looked for first. It is replaced only if
        asked for by `anew`; everything else goes into `folder`.
    mmap: what is returned is read from the file as it is used.
    say: told, in one line, what has changed since something of this name was kept.
    """
    path = place(name, key, folder)
    public = committed / f"{name}.pt" if committed else path
    if not anew:
        for candidate in dict.fromkeys((public, path)):
            state = read(candidate, mmap=mmap) or {}
            if state.pop("key", None) == key:
                return state
        if changed := changes(key, [public, *folder.glob(f"{name}-{'?' * 12}.pt")]):
            say(f"{name}: computed anew, since {changed} changed")
    state = compute()
    path = public if anew else path
    write(path, {"key": key, **state})
    if mmap:  # so that the memory is free again
        state = read(path, mmap=True)
        del state["key"]
    return state


def changes(key: Key, paths: Iterable[Path]) -> str:
    """How a key differs from the most similar one of some files, in words; or ""."""
    others = (read(path, quiet=True, mmap=True) for path in paths)
    keys = [other["key"] for other in others if other and "key" in other]
    lists = [
        [name for name in key | other if key.get(name) != other.get(name)]
        for other in keys
    ]
    return " and ".join(min(lists, key=len, default=[]))


def write(path: Path, state: State) -> None:
    """Keep a state, whole or not at all."""
    write_atomically(path, lambda stream: torch.save(state, stream))


def read(path: Path, *, quiet: bool = False, mmap: bool = False) -> State | None:
    """What was kept in a file, on the CPU; None if there is nothing that can be used.

    quiet: says nothing of a damaged file. mmap: of tensors, only what is used is read.
    """
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


# ------------------------------------------------------------- unfinished trainings


Parts = dict[str, nn.Module | torch.optim.Optimizer]


def save_progress(path: Path, parts: Parts, **more: object) -> None:
    """Keep an unfinished training: the states of its parts, and `more`."""
    write(path, {name: part.state_dict() for name, part in parts.items()} | more)


def resume(path: Path, parts: Parts) -> State:
    """Bring the parts to where they were; returns `more`, empty if nothing was kept."""
    state = read(path) or {}
    if state:
        for name, part in parts.items():
            part.load_state_dict(state.pop(name))
    return state
