from dataclasses import fields
from pathlib import Path

from modeling_dkd.mixture_options import MixtureOptions


ROOT = Path(__file__).resolve().parents[1]


def test_there_are_as_many_constants_as_the_pages_say_and_each_is_explained():
    names = [field.name for field in fields(MixtureOptions)]
    assert len(names) == 19
    assert "The nineteen constants are the fields of `MixtureOptions`" in (ROOT / "docs/method.md").read_text("utf-8")
    assert "holds every constant (19," in (ROOT / "CHANGELOG.md").read_text("utf-8")
    explained = MixtureOptions.__doc__ or ""
    assert [name for name in names if f"\n        {name}: " not in explained] == []
