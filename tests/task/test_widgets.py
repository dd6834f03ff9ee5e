"""Widgets travel as their class and their settings."""

from __future__ import annotations

from typing import Any

import pytest

from p2p_ipython.task.payload import pack_result, unpack
from tests.task.test_by_value import elsewhere

widgets: Any = pytest.importorskip("ipywidgets")


def there_and_back(widget: Any) -> Any:
    packed = pack_result(widget)
    return unpack(packed.segments, packed.inline, packed.large)


def test_a_widget_has_its_settings_elsewhere() -> None:
    values = [
        widgets.IntSlider(value=3, max=10, description="n"),
        widgets.Dropdown(options=[("one", 1), ("two", 2)], value=2),
        widgets.SelectMultiple(options=["a", "b", "c"], value=["a", "c"]),
        widgets.Text("hello"),
        widgets.FloatProgress(0.5, bar_style="info"),
        widgets.HBox([widgets.Checkbox(True), widgets.Label("x")], layout=widgets.Layout(width="5em")),
    ]
    assert elsewhere(pack_result(values), "value") == repr(values)
    shown = "value[1].options, value[2].value, value[5].children[0].value, value[5].layout.width"
    assert elsewhere(pack_result(values), f"({shown})") == repr(eval(shown, {"value": values}))


def test_a_widget_that_comes_home_is_the_one_that_is_here() -> None:
    slider = widgets.IntSlider(3)
    assert there_and_back(slider) is slider
    box = widgets.HBox([slider])
    assert there_and_back([box, slider]) == [box, slider]


def test_one_that_was_changed_elsewhere_is_another() -> None:
    slider = widgets.IntSlider(3)
    packed = pack_result(slider)
    slider.value = 4
    got = unpack(packed.segments, packed.inline, packed.large)
    assert (got is slider, got.value, slider.value) == (False, 3, 4)
    assert there_and_back(got) is not slider, "its number is the notebook's, its settings aren't"


def test_a_widget_of_a_function_stays_and_the_function_travels_without() -> None:
    def double(n: int) -> int:
        return 2 * n

    double.widget = widgets.interactive(double, n=2)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="more than its settings"):
        pack_result(double.widget)  # type: ignore[attr-defined]
    got = there_and_back(double)
    assert (got(4), hasattr(got, "widget")) == (8, False)
