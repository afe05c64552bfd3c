"""What tells a user's functions and classes apart, so that their runs are kept apart.

A method's own term and a network of one's own are part of a run's key as the text they
are made of and the values they use.
"""

import contextlib
import dis
import functools
import hashlib
import inspect
import itertools
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_pandas_object


def code(thing: Callable) -> list[str]:
    """What tells a user's function or class from others, as text.

    Its source, defaults and closure, and the functions, classes, modules and values
    that it uses: the user's own with their text, installed ones by name. (Not what a
    module of the user's own imports.)

    Raises:
        ValueError: If its source cannot be read, or it uses an object that may hold
            state its text does not show.
    """
    if not inspect.isfunction(thing) and not inspect.isclass(thing):
        raise ValueError(
            f"{thing!r} may hold state that its text does not show: pass a function."
        )
    return _code(thing, set())


def network(model: torch.nn.Module) -> list[str]:
    """What tells a network from others, as text: layers, weights, what they rest on.

    Of layers that are neither PyTorch's nor fidlib's nor installed ones, also their
    source, what it uses, and their attributes.

    Raises:
        ValueError: If a source cannot be read, or an attribute is an object that may
            hold state its text does not show.
    """
    return _network(model, set())


def structure(model: torch.nn.Module) -> list[str]:
    """What tells one architecture from another, as text: as `network`, less weights.

    Raises:
        ValueError: As `network`.
    """
    return _network(model, set(), weights=False)


def _network(
    model: torch.nn.Module, seen: set[int], *, weights: bool = True
) -> list[str]:
    if id(model) in seen:
        return []
    seen.add(id(model))
    _check_hooks(model)
    found = [str(model)]
    if weights:
        tensors = model.state_dict() | dict(model.named_buffers())
        found += _value(tensors, seen)
    for layer in model.modules():
        found += _value(type(layer), seen)
        held = vars(layer) if _own(type(layer).__module__) else _unshown(layer)
        for name, value in held.items():
            if not name.startswith("_") and name != "training":
                found += [name, *_value(value, seen)]
    return found


def _unshown(layer: torch.nn.Module) -> dict[str, object]:
    """Plain settings of an installed layer whose text shows none, such as attention."""
    shows = type(layer).extra_repr is not torch.nn.Module.extra_repr
    if shows or type(layer).__module__.startswith("fidlib."):
        return {}
    plain = int | float | bool | str
    return {n: value for n, value in vars(layer).items() if isinstance(value, plain)}


def _check_hooks(model: torch.nn.Module) -> None:
    for name, layer in model.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise ValueError(
                f"{name or 'the network'} ({type(layer).__name__}) has a hook, which "
                "no stored model keeps: remove it, or write what it does as a layer."
            )


def _text(thing: Callable) -> str:
    """Its source, which goes along with it to a process that cannot read it."""
    try:
        found = inspect.getsource(thing)
    except (OSError, TypeError) as error:
        if known := vars(thing).get(_TEXT):
            return known
        raise ValueError(
            f"{thing!r} has no text to tell its runs apart by: define it with def or "
            "class, in a module or a notebook cell."
        ) from error
    with contextlib.suppress(AttributeError, TypeError):
        setattr(thing, _TEXT, found)
    return found


_TEXT = "_fidlib_text"


def _code(thing: Callable, seen: set[int]) -> list[str]:
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    found = [_text(thing)]
    for base in getattr(thing, "__bases__", ()):
        found += _value(base, seen)
    members = vars(thing).items() if inspect.isclass(thing) else [("", thing)]
    for name, member in members:
        functions = _functions(member)
        for function in functions:
            found += _uses(function, seen)
        if not functions and not name.startswith(("__", "_abc_", _TEXT)):
            found += [name, *_value(member, seen)]
    return found


def _functions(member: object) -> list[FunctionType]:
    """A function, or those of a method or property, cached or not."""
    inner = ["fget", "fset", "__func__"]
    if isinstance(member, functools.cached_property):
        inner.append("func")
    parts = [getattr(member, name, None) for name in inner]
    return [f for f in (member, *parts) if isinstance(f, FunctionType)]


def _uses(function: FunctionType, seen: set[int]) -> list[str]:
    """Defaults, globals and closure of a function and of those written inside it."""
    names, codes, found = set(), [function.__code__], []
    for text in codes:  # grows
        codes += [c for c in text.co_consts if isinstance(c, CodeType)]
        loads = (i for i in dis.get_instructions(text) if i.opname == "LOAD_GLOBAL")
        names |= {i.argval for i in loads}
    if function.__name__ == "<lambda>":  # another may stand on the same line
        for text in codes:
            values = [c for c in text.co_consts if not isinstance(c, CodeType)]
            found += [text.co_code.hex(), *text.co_names, *_value(values, seen)]
    within = inspect.getclosurevars(function).nonlocals
    known = function.__globals__
    used = {name: known[name] for name in names if name in known} | dict(within)
    used["defaults"] = (function.__defaults__, function.__kwdefaults__)
    for name, value in sorted(used.items()):
        found += [name, *_value(value, seen)]
    return found


def _own(module: str) -> bool:
    """Whether a module is the user's, neither fidlib's nor an installed one."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or file is None:
        return module == "__main__"
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    part_of_python = Path(file).is_relative_to(sysconfig.get_path("stdlib"))
    return not installed and not part_of_python and module.split(".")[0] != "fidlib"


def _value(value: object, seen: set[int]) -> list[str]:
    """What tells one value from another."""
    if isinstance(value, ModuleType):
        own = _own(value.__name__)
        return [value.__name__, *([inspect.getsource(value)] if own else [])]
    if isinstance(value, torch.nn.Module):
        return _network(value, seen)
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().flatten().view(torch.uint8)
        return [str(value.dtype), str(value.shape), _bytes(flat.numpy())]
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        names = value.columns if isinstance(value, pd.DataFrame) else [value.name]
        rows = hash_pandas_object(value)  # pyright: ignore[reportCallIssue]
        value = [type(value), [*names], np.asarray(rows)]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [value.dtype.str, str(value.shape), _bytes(value)]
    if isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_value(part, seen) for part in value]
        if isinstance(value, set | frozenset):
            parts.sort()  # a set of texts has another order in every process
        return [type(value).__name__, *itertools.chain(*parts)]
    if inspect.isfunction(value) or inspect.isclass(value):
        if _own(value.__module__):
            return _code(value, seen)
        return [f"{value.__module__}.{value.__qualname__}"]
    if inspect.isbuiltin(value):
        return [value.__qualname__]
    text = repr(value)
    if isinstance(value, str | bytes):
        return [text]
    if re.search(r" at 0x[0-9a-f]+>|\.\.\.", text):  # or cut short
        raise ValueError(
            f"{text} may hold state that its text does not show: pass what it is made "
            "of, numbers, tensors or functions."
        )
    return [text]


def _bytes(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
