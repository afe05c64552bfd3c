import collections
import dataclasses
import functools
import importlib
import linecache
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from fidlib.runs import keys

FACTOR = 2
WEIGHTS = torch.ones(3)


def uses_a_constant(x):
    return FACTOR * x


def uses_it_inside(x):
    return sum(FACTOR * part for part in x)


def uses_a_helper(x):
    return uses_a_constant(x) + 1


class Module:
    def forward(self, x):
        return uses_a_constant(x)


class Child(Module):
    pass


class Indirect:
    @property
    def factor(self):
        return FACTOR


class Cached:
    @functools.cached_property
    def factor(self):
        return FACTOR


class Network(torch.nn.Module):
    def forward(self, x):
        return FACTOR * x


NETWORK = Network()


def asks_a_network(x):
    return NETWORK(x)


class Static:
    @staticmethod
    def forward(x):
        return uses_a_constant(x)


@functools.lru_cache
def remembers(x):
    return uses_a_constant(x)


@torch.no_grad()
def without_gradient(x):
    return uses_a_constant(x)


def doubled():
    return [FACTOR]


@dataclasses.dataclass
class Settings:
    width: int = 8
    factors: list = dataclasses.field(default_factory=doubled)


@dataclasses.dataclass(frozen=True, order=True)
class Counted:
    width: int = 8

    def __len__(self):
        return FACTOR * self.width


class WithoutGradient:
    @torch.no_grad()
    def start(self):
        return FACTOR

    @functools.lru_cache  # noqa: B019
    def again(self):
        return 2


Size = collections.namedtuple("Size", "height width")
PARTIAL = functools.partial(uses_a_constant, 3)


def asks_a_cache(x):
    return remembers(x) + Size(1, x).width


def fills(x):
    return PARTIAL() + Size(1, x).width


@pytest.mark.parametrize(
    "thing",
    [
        *(asks_a_cache, without_gradient, Settings, Counted, WithoutGradient, fills),
        *(uses_a_constant, uses_it_inside, uses_a_helper),
        *(Module, Child, Indirect, Static, Cached, asks_a_network),
    ],
)
def test_code_notices_what_a_function_rests_on(thing, monkeypatch):
    before = keys.code(thing)
    assert keys.code(thing) == before
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert keys.code(thing) != before


def test_code_refuses_lambdas_of_one_line_which_their_text_does_not_tell_apart():
    first, second = lambda x: 2 * x, lambda x: 3 * x
    for function in (first, second):
        with pytest.raises(ValueError, match="two lambdas stand on one line"):
            keys.code(function)


def test_code_is_the_key_that_a_thing_is_given():
    def held(values):
        def ask(x):
            return values(x)

        ask.key = "asks, second version"
        return ask

    assert keys.code(held(iter([]))) == keys.code(held(print))
    assert keys.code(held(print)) == ["asks, second version"]


def test_code_tells_attributes_of_a_class_apart():
    def kind(slope):
        class Leaky:
            negative_slope = slope

        return Leaky

    assert keys.code(kind(0.1)) == keys.code(kind(0.1))
    assert keys.code(kind(0.1)) != keys.code(kind(0.5))


def test_code_reads_the_users_other_modules_and_names_installed_ones(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)

    def code(factor):
        monkeypatch.delitem(sys.modules, "helpers_of_mine", raising=False)
        (tmp_path / "helpers_of_mine.py").write_text(
            f"import torch\n\ndef scaled(x):\n    return {factor} * torch.relu(x)\n"
        )
        importlib.invalidate_caches()
        linecache.clearcache()
        helpers = importlib.import_module("helpers_of_mine")
        scaled = helpers.scaled
        by_module = keys.code(lambda x: helpers.scaled(x))
        return by_module, keys.code(lambda x: scaled(x))

    (module, name), (other_module, other_name) = code(22), code(333)
    assert module != other_module
    assert name != other_name
    assert not keys._own("torch.nn.functional")
    assert not keys._own("functools")
    assert not keys._own("math")
    assert not keys._own("fidlib.methods")


def test_code_tells_functions_apart():
    def scaled(factor):
        return lambda x: factor * x

    assert keys.code(scaled(2)) == keys.code(scaled(2))
    assert keys.code(scaled(2)) != keys.code(scaled(3))
    with pytest.raises(ValueError, match="pass a function"):
        keys.code(len)


def test_code_tells_tensors_modules_and_helpers_in_a_closure_apart(monkeypatch):
    def around(held):
        return lambda x: held(x) if callable(held) else held * x

    def again(x):
        return x - 1

    assert keys.code(around(again)) == keys.code(around(again))
    assert "at 0x" not in str(keys.code(around(again)))
    different = [2, torch.ones(2), torch.zeros(2), torch.ones(2).double(), again]
    different += [uses_a_constant, torch.relu, torch.nn.Linear(2, 2), [1, {"a": 2}]]
    texts = [str(keys.code(around(held))) for held in different]
    assert len(set(texts)) == len(different)
    with pytest.raises(ValueError, match="may hold state"):
        keys.code(around(iter([])))
    letters = [repr(letter) for letter in "abcdefgh"]
    assert keys.code(around(set("hgfedcba")))[-8:] == letters  # in every process

    def weighs(x):
        return WEIGHTS * x

    before = keys.code(weighs)
    monkeypatch.setitem(globals(), "WEIGHTS", torch.zeros(3))
    assert keys.code(weighs) != before


class Sloped(torch.nn.Module):
    def __init__(self, slope, act=torch.relu):
        super().__init__()
        self.slope, self.act = slope, act

    def forward(self, x):
        return self.act(FACTOR * x) + self.slope * x


def test_network_tells_attributes_and_what_layers_rest_on_apart(monkeypatch):
    def within(*parts):
        return keys.network(torch.nn.Sequential(*parts))

    before = within(Sloped(0.0), torch.nn.ReLU())
    assert within(Sloped(0.0), torch.nn.ReLU()) == before
    assert within(Sloped(5.0), torch.nn.ReLU()) != before
    assert within(Sloped(0.0, torch.tanh), torch.nn.ReLU()) != before
    assert within(torch.nn.ReLU(), Sloped(0.0)) != before
    monkeypatch.setitem(globals(), "FACTOR", 4)
    assert within(Sloped(0.0), torch.nn.ReLU()) != before
    with pytest.raises(ValueError, match="may hold state"):
        keys.network(Sloped(0.0, act=iter([])))


def test_network_sees_every_weight_of_any_type():
    half = torch.nn.Linear(2, 2).bfloat16()
    before = keys.network(half)
    assert keys.network(half) == before
    with torch.no_grad():
        half.bias[1] += 1
    assert keys.network(half) != before


def test_code_sees_all_of_a_long_table_and_refuses_what_is_cut_short():
    def around(held):
        return lambda x: held * x

    long = pd.Series(range(1000))
    other = long.copy()
    other[500] = 0
    assert keys.code(around(long)) == keys.code(around(long.copy()))
    assert keys.code(around(long)) != keys.code(around(other))
    assert keys.code(around(long)) != keys.code(around(long.rename("b")))
    frames = [pd.DataFrame({name: long}) for name in ("a", "b")]
    assert keys.code(around(frames[0])) != keys.code(around(frames[1]))
    with pytest.raises(ValueError, match="may hold state"):
        keys.code(around(np.array([object()] * 1000)))


def test_structure_is_layers_and_settings_and_no_weights(monkeypatch):
    def within(*parts):
        return keys.network(torch.nn.Sequential(*parts), weights=False)

    before = within(torch.nn.Linear(2, 2), Sloped(0.0))
    assert within(torch.nn.Linear(2, 2), Sloped(0.0)) == before  # other weights
    assert within(torch.nn.Linear(2, 2, bias=False), Sloped(0.0)) != before
    assert within(torch.nn.Linear(2, 2), Sloped(1.0)) != before
    assert within(torch.nn.Linear(2, 2), Sloped(0.0, torch.tanh)) != before
    assert within(Sloped(0.0), torch.nn.Linear(2, 2)) != before
    monkeypatch.setitem(globals(), "FACTOR", 4)
    assert within(torch.nn.Linear(2, 2), Sloped(0.0)) != before


class Acting(torch.nn.Module):
    def __init__(self, **settings):
        super().__init__()
        vars(self).update(settings)


def test_structure_sees_settings_of_private_names_and_activations():
    def text(layer):
        return keys.network(torch.nn.Sequential(layer), weights=False)

    def encoder(activation):
        return torch.nn.TransformerEncoderLayer(4, 2, 4, activation=activation)

    pairs = [
        (Acting(_act=torch.relu), Acting(_act=torch.tanh)),
        (Acting(_act=uses_a_constant), Acting(_act=uses_it_inside)),
        (Acting(_slope=0.1), Acting(_slope=0.2)),
        (encoder(torch.nn.functional.silu), encoder(torch.nn.functional.elu)),
    ]
    for one, other in pairs:
        assert text(one) == text(one)
        assert text(one) != text(other)
    # What a layer has seen is no setting of it.
    assert text(Acting(_seen=torch.ones(1))) == text(Acting(_seen=torch.zeros(1)))
