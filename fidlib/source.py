"""What tells a user's functions and classes apart, so that their runs are kept apart.

A method's own term and a network of one's own are part of a run's key as the text they
are made of and the values they use.
"""

import dis
import inspect
import itertools
import re
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType

import numpy as np
import torch

from fidlib.runs import digest


def code(thing: Callable) -> list[str]:
    """What tells a user's function or class from others, as text.

    Its source, defaults and closure, and the functions, classes and values that it
    uses: those of its own module with their text, others by name.

    Raises:
        ValueError: If its source cannot be read, or it uses an object that may hold
            state its text does not show.
    """
    if not inspect.isfunction(thing) and not inspect.isclass(thing):
        raise ValueError(
            f"{thing!r} may hold state that its text does not show: pass a function."
        )
    return _code(thing, set())


def _code(thing: Callable, seen: set[int]) -> list[str]:
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    try:
        found = [inspect.getsource(thing)]
    except (OSError, TypeError) as error:
        raise ValueError(
            f"{thing!r} has no text to tell its runs apart by: define it with def or "
            "class, in a module or a notebook cell."
        ) from error
    for base in getattr(thing, "__bases__", ()):
        found += _value(base, thing.__module__, seen)
    for function in _functions(thing):
        used = {"defaults": (function.__defaults__, function.__kwdefaults__)}
        used |= _used(function)
        for name, value in sorted(used.items()):
            found += [name, *_value(value, thing.__module__, seen)]
    return found


def _functions(thing: Callable) -> list[FunctionType]:
    """The function itself, or a class's methods and properties, cached or not."""
    if not inspect.isclass(thing):
        return [thing] if isinstance(thing, FunctionType) else []
    found = []
    for member in vars(thing).values():
        inner = ("fget", "fset", "__func__", "func")
        parts = [getattr(member, name, None) for name in inner]
        found += [f for f in (member, *parts) if isinstance(f, FunctionType)]
    return found


def _used(function: FunctionType) -> dict[str, object]:
    """Globals and closure of a function and of those written inside it, by name."""
    names, codes = set(), [function.__code__]
    for text in codes:  # grows
        codes += [c for c in text.co_consts if isinstance(c, CodeType)]
        loads = (i for i in dis.get_instructions(text) if i.opname == "LOAD_GLOBAL")
        names |= {i.argval for i in loads}
    within = inspect.getclosurevars(function).nonlocals
    known = function.__globals__
    return {name: known[name] for name in names if name in known} | dict(within)


def _value(value: object, module: str, seen: set[int]) -> list[str]:
    """What tells one value from another."""
    if isinstance(value, ModuleType):
        return [value.__name__]
    if isinstance(value, torch.nn.Module):
        value = [type(value), str(value), value.state_dict()]
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().flatten().view(torch.uint8)
        return [digest([str(value.dtype), value.shape, flat.numpy().tobytes().hex()])]
    if isinstance(value, np.ndarray):
        return [digest([value.dtype.str, value.shape, value.tobytes().hex()])]
    if isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    if isinstance(value, list | tuple | set | frozenset):
        parts = [_value(part, module, seen) for part in value]
        if isinstance(value, set | frozenset):
            parts.sort()  # a set of texts has another order in every process
        return [type(value).__name__, *itertools.chain(*parts)]
    if inspect.isfunction(value) or inspect.isclass(value):
        if value.__module__ == module:
            return _code(value, seen)
        return [f"{value.__module__}.{value.__qualname__}"]
    if inspect.isbuiltin(value):
        return [value.__qualname__]
    text = repr(value)
    if re.search(r" at 0x[0-9a-f]+>", text):
        raise ValueError(
            f"{text} may hold state that its text does not show: pass what it is made "
            "of, numbers, tensors or functions."
        )
    return [text]
