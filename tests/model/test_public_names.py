"""What the package exports shows the module that users import it from."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from redis_stream_client._model.public_names import claim_exports

if TYPE_CHECKING:
    from collections.abc import Callable

    Exporting = Callable[..., ModuleType]


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> Exporting:
    """A function that makes a module which exports these objects."""

    def make(name: str, **exported: object) -> ModuleType:
        module = ModuleType(name)
        vars(module).update(exported, __all__=list(exported))
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


def made_in(module: str) -> tuple[type, Callable[[], None]]:
    """A class and a function of a module."""

    class Thing:
        pass

    def act() -> None:
        pass

    Thing.__module__ = act.__module__ = module
    return Thing, act


def test_classes_and_functions_show_the_module_that_exports_them(exporting: Exporting) -> None:
    thing, act = made_in("shop._room.things")
    exporting("shop", Thing=thing, act=act)
    claim_exports("shop")
    assert thing.__module__ == act.__module__ == "shop"


def test_what_the_package_itself_exports_keeps_that_name_in_its_other_modules(exporting: Exporting) -> None:
    thing, act = made_in("shop._room.things")
    exporting("shop", Thing=thing)
    exporting("shop.testing", Thing=thing, act=act)
    claim_exports("shop")
    claim_exports("shop.testing")
    assert thing.__module__ == "shop"
    assert act.__module__ == "shop.testing"


def test_what_is_not_ours_keeps_its_name(exporting: Exporting) -> None:
    thing, act = made_in("elsewhere")
    exporting("shop", Thing=thing, act=act, NUMBER=17, Alias=int | str)
    claim_exports("shop")
    assert thing.__module__ == act.__module__ == "elsewhere"
