"""Objects of libraries arrive as they were, though their own pickle fails or loses something."""

from __future__ import annotations

import csv
import importlib
import io
import threading
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2p_ipython.task.payload import pack_result
from tests.task.test_by_value import elsewhere


def sympy() -> Any:
    return pytest.importorskip("sympy")


SYMPY = [
    ("sympy.codegen.ast", "String('foo')"),
    ("sympy.codegen.ast", "Variable(Symbol('x'), type=float32)"),
    ("sympy", "Poly(Symbol('x') ** 2, Symbol('x'), domain='ZZ[t]')"),
    ("sympy", "Add(Symbol('x'), Symbol('x'), evaluate=False)"),
    ("sympy", "Point(0, 1).evalf(3)"),
    ("sympy.polys.puiseux", "puiseux_ring('x', QQ)[1] ** QQ(1, 2)"),
    ("sympy.physics.optics", "GeometricRay(1, 2)"),
    ("sympy.combinatorics.free_groups", "free_group('x, y')[1] ** 2"),
    ("sympy.vector", "CoordSys3D('R').i"),
    ("sympy", "Matrix([[1, 2], [3, 4]])"),
    ("sympy", "ImmutableMatrix([[1, 2], [3, 4]])"),
    ("sympy", "Function('f')(Symbol('x')).diff(Symbol('x'))"),
    ("sympy", "Integral(Symbol('x'), (Symbol('x'), 0, 1))"),
    ("sympy", "Dummy('d')"),
    ("sympy", "IndexedBase('A')[Symbol('i', integer=True)]"),
    ("sympy", "IndexedBase('A', positive=True)"),
    ("sympy", "MatrixSymbol('M', 2, 2).T"),
    ("sympy", "Lambda(Symbol('x'), Symbol('x') + 1)"),
    ("sympy", "Piecewise((1, Symbol('x') > 0), (0, True))"),
    ("sympy", "Interval(0, 1) * FiniteSet(1, 2)"),
    ("sympy.solvers.diophantine.diophantine", "diop_solve(Symbol('a', integer=True) - 3)"),
]


def test_objects_of_sympy_look_the_same_elsewhere() -> None:
    values = [eval(made, {**vars(sympy()), **vars(importlib.import_module(module))}) for module, made in SYMPY]
    shown = "[(type(each).__name__, str(each), __import__('sympy').latex(each)) for each in value]"
    assert elsewhere(pack_result(values), shown) == repr(eval(shown, {"value": values}))
    made = "eval(made, {**vars(__import__('sympy')), **vars(__import__('importlib').import_module(module))})"
    cases = [case for case in SYMPY if "Dummy" not in case[1]]
    again = [value for case, value in zip(SYMPY, values, strict=True) if case in cases]
    equal = f"[(made, each == {made}) for (module, made), each in zip(value[0], value[1]) if not each == {made}]"
    assert elsewhere(pack_result([cases, again]), equal) == repr(eval(equal, {"value": [cases, again]}))


def test_an_expression_finds_itself_in_a_dictionary_elsewhere() -> None:
    x = sympy().Symbol("x")
    hash(x**2 + 1)  # it is kept, and each process has another one
    assert elsewhere(pack_result([{x**2 + 1: "found"}]), "value[0][__import__('sympy').Symbol('x') ** 2 + 1]") == (
        "'found'"
    )


def test_words_of_a_free_group_are_its_elements_elsewhere() -> None:
    free_group = pytest.importorskip("sympy.combinatorics.free_groups").free_group
    group, x, y = free_group("x, y")
    assert elsewhere(pack_result((group, x, y)), "(value[1] in value[0], value[1] * value[2])") == "(True, x*y)"


def test_a_class_that_notes_something_when_it_makes_an_object_makes_it() -> None:
    control = pytest.importorskip("sympy.physics.control.lti")
    x = sympy().Symbol("x")
    value = control.Parallel(control.TransferFunction(1, x, x), control.TransferFunction(x, x + 1, x))
    assert elsewhere(pack_result(value), "str(value.doit())") == repr(str(value.doit()))


def test_what_a_group_has_computed_goes_along() -> None:
    groups = pytest.importorskip("sympy.combinatorics")
    group = groups.SymmetricGroup(3)
    group.schreier_sims()
    assert elsewhere(pack_result(group), "value._base") == repr(group._base)


def test_a_set_with_arguments_of_its_own_keeps_them() -> None:
    solve = pytest.importorskip("sympy.solvers.diophantine.diophantine")
    a, b = sympy().symbols("a, b", integer=True)
    value = solve.DiophantineSolutionSet([a, b], [sympy().Symbol("t")])
    value.add((1, 2))
    assert elsewhere(pack_result(value), "(set(value), value.parameters)") == "({(1, 2)}, (t,))"


def test_a_distribution_keeps_its_parameters() -> None:
    stats = pytest.importorskip("scipy.stats")
    if not hasattr(stats, "Normal"):
        pytest.skip("scipy has had it since 1.15")
    assert elsewhere(pack_result(stats.Normal(mu=2.0, sigma=0.5)), "(float(value.mu), type(value).__name__)") == (
        "(2.0, 'Normal')"
    )


def test_a_masked_array_has_a_mask_elsewhere_if_it_has_one() -> None:
    values = [
        np.ma.array([1, 2, 3]),
        np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=7),
        np.ma.array([1.5, 2.5], fill_value=-1.0),
        np.ma.array([1, 2], hard_mask=True),
        np.ma.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.ma.array(np.arange(10_000)),
    ]
    shown = "[(each, each.mask, each.fill_value, each.hardmask) for each in value]"
    assert elsewhere(pack_result(values), shown) == repr(eval(shown, {"value": values}))
    assert elsewhere(pack_result(np.ma.masked), "value is __import__('numpy').ma.masked") == "True"


def test_a_figure_that_is_about_to_be_shown_here_is_not_shown_elsewhere() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    figure, axes = plt.subplots()
    try:
        packed = pack_result(axes.set_xlabel("t"))
        assert (
            elsewhere(packed, "(value.get_text(), __import__('matplotlib.pyplot').pyplot.get_fignums())") == "('t', [])"
        )
    finally:
        plt.close(figure)


def test_an_error_of_a_formula_shows_the_place() -> None:
    patsy = pytest.importorskip("patsy")
    error = patsy.PatsyError("no such name", patsy.origin.Origin("y ~ height", 4, 10))
    assert elsewhere(pack_result(error, error=True), "str(value)") == repr(str(error))
    assert "^^^^^^" in str(error)


def test_a_writer_of_rows_writes_on(tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL).writerow("ab")
    writer = csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL)
    shown = elsewhere(pack_result((text, writer)), "value[1].writerow('cd') and value[0].getvalue()")
    assert shown == repr('"a";"b"\r\n"c";"d"\r\n')
    with (tmp_path / "a.csv").open("w") as file:
        rows = csv.DictWriter(file, ["a"])
        with pytest.raises(TypeError, match="open file"):
            pack_result(rows)
    assert elsewhere(pack_result(rows), "value.fieldnames") == "['a']"


def test_values_of_a_thread_are_those_of_the_task() -> None:
    local = threading.local()
    local.name = "main"
    assert elsewhere(pack_result(local), "value.name") == "'main'"


def test_a_day_of_the_iso_calendar_stays_one() -> None:
    day = date(2023, 12, 31).isocalendar()
    assert elsewhere(pack_result([day]), "value") == repr([day])


def test_the_generator_behind_functions_of_sympy_stays() -> None:
    numbers = pytest.importorskip("sympy.core.random")
    numbers.seed(1)
    script = "__import__('sympy.core.random').core.random.seed(1) or value()"
    assert elsewhere(pack_result(numbers.random), script) == repr(numbers.random())
