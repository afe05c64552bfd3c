"""What results are known by: digests of settings, of functions and of networks.

A function, class or network of the user's own is known by its text and by the values
that it uses. Where these do not tell all, it says what it is by a text of its own, the
attribute `key`: `my_term.key = "second version"`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def canonical(value: object) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)


def digest(value: object) -> str:
    """Sixteen hex digits of the SHA-256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def stream(seed: int, *names: str) -> torch.Generator:
    """A CPU random generator of its own for one purpose of one study.

    Streams with different names are independent, so what is trained first, or not at
    all, changes nothing in what is trained next.
    """
    import torch

    text = canonical([seed, *names]).encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)
    return torch.Generator().manual_seed(number)


def plain(value: object) -> object:
    """A dataclass or a path as what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")


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


def network(model: torch.nn.Module, *, weights: bool = True) -> list[str]:
    """What tells a network from others, as text: layers, settings, weights.

    Of layers that are neither PyTorch's nor fidlib's nor installed ones, also their
    source, what it uses, and their attributes.

    Args:
        model: Any network.
        weights: False leaves parameters and buffers out: its architecture alone.

    Raises:
        ValueError: If a source cannot be read, an attribute is an object that may hold
            state its text does not show, or a layer has a hook.
    """
    return _network(model, set(), weights=weights)


def _network(
    model: torch.nn.Module, seen: set[int], *, weights: bool = True
) -> list[str]:
    if id(model) in seen:
        return []
    seen.add(id(model))
    parts = [str(model)]
    if weights:
        parts += _value(model.state_dict() | dict(model.named_buffers()), seen)
    for name, layer in model.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise ValueError(
                f"{name or 'the network'} ({type(layer).__name__}) has a hook, which "
                "no stored model keeps: remove it, or write what it does as a layer."
            )
        parts += _value(type(layer), seen)
        foreign = _own(type(layer).__module__)
        for attribute, value in (vars(layer) if foreign else _unshown(layer)).items():
            # Of what has a private name, settings; the rest is PyTorch's, or a cache.
            setting = foreign and isinstance(value, _SETTINGS)
            if attribute != "training" and (setting or not attribute.startswith("_")):
                parts += [attribute, *_value(value, seen)]
    return parts


_SETTINGS = int | float | str | FunctionType | BuiltinFunctionType
"""Types of a layer's plain settings, such as a slope or an activation."""


def _unshown(layer: torch.nn.Module) -> dict[str, object]:
    """Plain settings of an installed layer whose text shows none, such as attention."""
    from torch import nn

    shows = type(layer).extra_repr is not nn.Module.extra_repr
    if shows or type(layer).__module__.startswith("fidlib."):
        return {}
    return {n: v for n, v in vars(layer).items() if isinstance(v, _SETTINGS)}


def _code(thing: Callable, seen: set[int]) -> list[str]:
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(text := vars(thing).get("key"), str):
        return [text]
    parts = [_text(thing)]
    for base in getattr(thing, "__bases__", ()):
        parts += _value(base, seen)
    if dataclasses.is_dataclass(thing):
        makers = [f.default_factory for f in dataclasses.fields(thing)]
        parts += _value([m for m in makers if m is not dataclasses.MISSING], seen)
    members = vars(thing).items() if inspect.isclass(thing) else [("", thing)]
    for name, member in members:
        if _generated(thing, name, member):
            continue
        functions = _functions(member)
        for function in functions:
            parts += _uses(function, seen)
        if not functions and not name.startswith(("__", "_abc_", _TEXT)):
            parts += [name, *_value(member, seen)]
    return parts


def _generated(thing: object, name: str, member: object) -> bool:
    """Whether a dataclass was given this method, which its own text decides."""
    if not (callable(member) and dataclasses.is_dataclass(thing)):
        return False
    code = getattr(inspect.unwrap(member), "__code__", None)
    return name.startswith("__") and getattr(code, "co_filename", "") == "<string>"


_TEXT = "_fidlib_text"


def _text(thing: Callable) -> str:
    """Its source, which goes along with it to a process that cannot read it."""
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError) as error:
        if known := vars(thing).get(_TEXT):
            return known
        if fields := getattr(thing, "_fields", None):  # of a namedtuple
            return f"{thing.__qualname__}{fields}"
        raise ValueError(
            f"{thing!r} has no text to tell its runs apart by: define it with def or "
            "class, in a module or a notebook cell."
        ) from error
    if thing.__name__ == "<lambda>" and source.count("lambda") > 1:
        raise ValueError(
            f"two lambdas stand on one line ({source.strip()}), so their text does not "
            "tell them apart: define each with def."
        )
    with contextlib.suppress(AttributeError, TypeError):
        setattr(thing, _TEXT, source)
    return source


def _functions(member: object) -> list[FunctionType]:
    """A function, or those of a method or property, cached or not."""
    inner = ["fget", "fset", "__func__"]
    if isinstance(member, functools.cached_property):
        inner.append("func")
    parts = [getattr(member, name, None) for name in inner]
    return [f for f in (member, *parts) if isinstance(f, FunctionType)]


def _uses(function: FunctionType, seen: set[int]) -> list[str]:
    """Defaults, globals and closure of a function and of those written inside it."""
    codes = [function.__code__]
    for inside in codes:  # grows
        codes += [c for c in inside.co_consts if isinstance(c, CodeType)]
    names, known = {n for c in codes for n in c.co_names}, function.__globals__
    used = {name: known[name] for name in names if name in known}
    inside = inspect.getclosurevars(function).nonlocals
    if hasattr(function, "__wrapped__") and not _own(known["__name__"]):
        # Methods that an installed decorator keeps, as no_grad does: the text names it.
        inside = {n: v for n, v in inside.items() if not inspect.ismethod(v)}
    used |= inside
    used["defaults"] = (function.__defaults__, function.__kwdefaults__)
    return [part for name in sorted(used) for part in (name, *_value(used[name], seen))]


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
    import numpy as np
    import torch

    if isinstance(value, ModuleType):
        foreign = _own(value.__name__)
        return [value.__name__, *([inspect.getsource(value)] if foreign else [])]
    if isinstance(value, torch.nn.Module):
        return _network(value, seen)
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().flatten().view(torch.uint8)
        return [str(value.dtype), str(value.shape), _bytes(flat.numpy())]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [value.dtype.str, str(value.shape), _bytes(value)]
    if type(value).__module__.split(".")[0] == "pandas":  # its text is rounded, and cut
        import joblib

        return [str(joblib.hash(value))]
    if isinstance(value, functools._lru_cache_wrapper):
        value = value.__wrapped__
    if isinstance(value, functools.partial):
        value = ["partial", value.func, value.args, value.keywords]
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
    if not isinstance(value, str) and re.search(r" at 0x[0-9a-f]+>|\.\.\.", text):
        raise ValueError(
            f"{text} may hold state that its text does not show: pass what it is made "
            "of, or give what uses it an attribute key, a text of your own."
        )
    return [text]


def _bytes(array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
