"""Counts of ignored files."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2.sources.extensions import extension_of, is_image
from mlx_aimv2.sources.ignored import Ignored


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), max_size=9
    )
)
def test_any_names_are_counted_in_one_line(names: list[str]) -> None:
    files = Counter({("other", extension_of(name)) for name in names if not is_image(name)})
    ignored = Ignored(files) + Ignored(files)
    assert sum(ignored.files.values()) == 2 * len(files) and bool(ignored) == bool(files)
    assert len(ignored.summary()) < 120
