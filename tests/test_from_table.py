"""Tables whose columns are declared: reading, refusals, densities in closed form, a trained run."""

from __future__ import annotations

import dataclasses
import gzip
import math

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow
import pytest
import scipy.stats
from pyarrow import parquet

import likejax as lj
from likejax.data import Bounded, Categorical, Continuous, Integer, Positive
from likejax.data.readers import FileError
from tests.registry import MIXED, rows_of

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
SMALL = {
    "size": [0.5, 1.25, 0.75, 2.0],
    "rooms": [1, 3, 2, 2],
    "city": ["Ulm", "Bonn", "Ulm", "Rom"],
    "lift": [True, False, True, True],
}
KINDS = (
    Continuous(name="size"),
    Integer(1, 3, name="rooms"),
    Categorical(("Bonn", "Rom", "Ulm"), name="city"),
    Categorical(("False", "True"), name="lift"),
)
ROWS = [[0.5, 1, 2, 1], [1.25, 3, 0, 0], [0.75, 2, 2, 1], [2.0, 2, 1, 1]]


class Missing:
    """Stands for the missing value of pandas, whose class has this name."""


Missing.__name__ = "NAType"


class CategoryType:
    """Stands for the type of a column of categories in pandas."""

    def __init__(self, categories):
        self.categories = categories


class Series:
    """As much of a column of a data frame as is read."""

    def __init__(self, values, categories=None):
        self._values = np.asarray(values)
        self.dtype = self._values.dtype if categories is None else CategoryType(categories)

    def __array__(self, dtype=None, copy=None):
        return self._values


class Frame:
    """As much of a data frame as is read: names of columns, and a column by its name."""

    def __init__(self, **columns):
        self.columns = list(columns)
        self._columns = columns

    def __getitem__(self, name):
        return self._columns[name]


def frame(**changes):
    return Frame(**{name: Series(values) for name, values in (SMALL | changes).items()})


class Categorical_:
    """Stands for the type of a column of categories in polars, which lists those of all tables."""

    categories = ("Ulm", "Bonn", "Rom", "Mainz")


Categorical_.__name__ = "Categorical"


class LazyFrame:
    """Stands for a frame of polars whose rows are yet to be read."""

    def collect(self):
        raise AssertionError("rows are read by the user's call alone")

    def collect_schema(self):
        return {}


# --- sources


def test_categories_of_other_tables_are_not_those_of_a_column():
    city = Series(["Ulm", "Mainz", "Ulm", "Mainz"])
    city.dtype = Categorical_()
    dataset = lj.Dataset.from_table(Frame(city=city))
    assert dataset.column_kinds == (Categorical(("Mainz", "Ulm"), name="city"),)


def test_a_lazy_frame_is_to_be_collected():
    with pytest.raises(TypeError, match=r"got LazyFrame.*pass source\.collect\(\)"):
        lj.Dataset.from_table(LazyFrame())


def written(form, folder):
    """The small table in one of its forms."""
    if form == "frame":
        return frame()
    if form == "mapping":
        return SMALL
    if form == "arrow":
        return pyarrow.table(SMALL)
    place = folder / f"table.{form}"
    if form in ("parquet", "pq"):
        parquet.write_table(pyarrow.table(SMALL), place)
        return place
    sign = "\t" if form.startswith("tsv") else ","
    rows = zip(*SMALL.values(), strict=True)
    lines = [sign.join(map(str, row)) for row in (SMALL, *rows)]
    text = "\ufeff" + "\r\n".join(lines) + "\r\n"
    if form.endswith("gz"):
        place.write_bytes(gzip.compress(text.encode()))
    else:
        place.write_bytes(text.encode())
    return str(place)


@pytest.mark.parametrize(
    "form", ["frame", "mapping", "arrow", "csv", "csv.gz", "tsv", "parquet", "pq"]
)
def test_every_source_gives_the_same_table(form, tmp_path):
    table = lj.Dataset.from_table(written(form, tmp_path))
    assert table.column_kinds == KINDS
    assert table.columns == ("size", "rooms", "city", "lift")
    assert table.levels is None
    np.testing.assert_array_equal(table.examples, ROWS)
    assert "column 'rooms' taken as integer 1..3" in table.provenance
    assert not table.examples.flags.writeable


def test_frames_of_pandas():
    """The library itself where it is installed; the other tests have a stand-in."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(SMALL)
    for each in (frame, frame.convert_dtypes(), frame.astype({"city": "category"})):
        table = lj.Dataset.from_table(each)
        assert table.column_kinds == KINDS
        np.testing.assert_array_equal(table.examples, ROWS)
    grades = pandas.Categorical([2, 1, 2, 1], categories=[1, 2, 3])
    table = lj.Dataset.from_table(pandas.DataFrame({"grade": grades}))
    assert table.column_kinds == (Categorical(("1", "2", "3"), name="grade"),)
    missing = frame.convert_dtypes()
    missing.loc[2, "rooms"] = pandas.NA
    with pytest.raises(ValueError, match="'rooms': expected no missing values, got one at row 2"):
        lj.Dataset.from_table(missing)
    by_name = lj.Dataset.from_table(frame, labels="city", conditions=["rooms"])
    assert by_name.class_names == ("Bonn", "Rom", "Ulm")
    numbers = lj.Dataset.from_array(frame[["size", "rooms"]])
    assert numbers.columns == ("size", "rooms")
    np.testing.assert_array_equal(numbers.examples, np.array(ROWS)[:, :2])
    back = pandas.DataFrame(lj.data.as_columns(table.examples, table.column_kinds))
    assert back["grade"].tolist() == ["2", "1", "2", "1"]


def test_frames_of_polars():
    """The library itself where it is installed; the other tests have a stand-in."""
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame(SMALL)
    others = polars.DataFrame({"city": ["Mainz", "Ulm"]}, schema={"city": polars.Categorical})
    listed = polars.Enum(KINDS[2].categories)
    for dtype in (polars.String, polars.Categorical, listed):
        table = lj.Dataset.from_table(frame.with_columns(polars.col("city").cast(dtype)))
        assert table.column_kinds == KINDS  # without the categories of `others`
        np.testing.assert_array_equal(table.examples, ROWS)
    assert others["city"].to_list() == ["Mainz", "Ulm"]
    with pytest.raises(TypeError, match=r"got LazyFrame.*pass source\.collect\(\)"):
        lj.Dataset.from_table(frame.lazy())
    missing = frame.with_columns(rooms=polars.Series([1, 3, None, 2]))
    with pytest.raises(ValueError, match="'rooms': expected no missing values, got one at row 2"):
        lj.Dataset.from_table(missing)
    numbers = lj.Dataset.from_array(frame[["size", "rooms"]])
    assert numbers.columns == ("size", "rooms")
    np.testing.assert_array_equal(numbers.examples, np.array(ROWS)[:, :2])
    back = polars.DataFrame(lj.data.as_columns(table.examples, table.column_kinds))
    assert back["city"].to_list() == SMALL["city"]


def test_arrow_strings_of_a_dictionary():
    words = pyarrow.array(SMALL["city"]).dictionary_encode()
    table = lj.Dataset.from_table(pyarrow.table({"city": words}))
    assert table.column_kinds == (KINDS[2],)


def test_quotes_and_words_of_a_csv(tmp_path):
    place = tmp_path / "quoted.csv"
    place.write_text('name;size\n"a; b";1.5\n"two\nlines";2\nplain;-1e3\n')
    table = lj.Dataset.from_table(place)
    assert table.column_kinds[0] == Categorical(("a; b", "plain", "two\nlines"), name="name")
    np.testing.assert_array_equal(table.examples[:, 1], [1.5, 2, -1000])


def test_categories_that_a_frame_lists_are_kept():
    """Also if no row has them, and if they are numbers."""
    words = Series(["Ulm", "Bonn"], categories=["Ulm", "Bonn", "Rom"])
    numbers = Series([2, 1], categories=[1, 2, 3])
    table = lj.Dataset.from_table(Frame(city=words, grade=numbers))
    assert table.column_kinds == (
        Categorical(("Ulm", "Bonn", "Rom"), name="city"),
        Categorical(("1", "2", "3"), name="grade"),
    )
    np.testing.assert_array_equal(table.examples, [[0, 1], [1, 0]])


def test_precision_of_what_came_is_kept():
    single = {"x": np.array([0.5, 0.1], "f4"), "n": [1, 2]}
    assert lj.Dataset.from_table(single).examples.dtype == np.float32
    double = lj.Dataset.from_table({"x": [0.1, 0.2], "n": [1, 2]})
    assert double.examples.dtype == np.float64
    assert double.examples[0, 0] == 0.1


# --- declarations


def test_declarations():
    columns = {
        "size": "positive",
        "rooms": Integer(0, 20),
        "city": "categorical",
        "lift": "integer",
    }
    table = lj.Dataset.from_table(SMALL, columns=columns)
    assert table.column_kinds == (
        Positive(name="size"),
        Integer(0, 20, name="rooms"),
        KINDS[2],
        Integer(0, 1, name="lift"),
    )
    bounded = lj.Dataset.from_table(SMALL, columns={"size": (0, 10), "city": None, "lift": None})
    assert bounded.column_kinds == (Bounded(0, 10, name="size"), KINDS[1])
    assert "columns left out: city, lift" in bounded.provenance
    numbers = lj.Dataset.from_table({"grade": [2.0, 10.0, 1.0]}, columns={"grade": "categorical"})
    assert numbers.column_kinds == (Categorical(("1", "2", "10"), name="grade"),)


def test_kinds_that_the_values_decide():
    n = 400
    table = {
        "rating": RNG.integers(1, 6, n),
        "count": RNG.integers(0, 5000, n),
        "change": RNG.integers(-5000, 5000, n),
        "debt": np.rint(1000 * RNG.standard_cauchy(n)).astype(int).clip(-(10**6), 10**6),
        "time": 1_700_000_000 + RNG.integers(0, 10**7, n),
        "income": RNG.standard_cauchy(n),
        "height": RNG.normal(size=n),
    }
    kinds = lj.Dataset.from_table(table).column_kinds
    assert kinds == (
        Integer(1, 5, name="rating"),
        Integer(0, name="count"),
        Integer(name="change"),
        Integer(tails="heavy", name="debt"),
        Continuous(name="time"),
        Continuous("heavy", name="income"),
        Continuous(name="height"),
    )


def test_a_test_part_is_read_with_the_kinds_of_training():
    """By their names, in their order, with what other columns there are left out; one row may be
    constant."""
    train = lj.Dataset.from_table(SMALL)
    other = {"new": ["a"], "city": ["Bonn"], "rooms": [2], "lift": [False], "size": [9.0]}
    test = lj.Dataset.from_table(other, columns=train.column_kinds, split="test")
    assert test.column_kinds == train.column_kinds
    np.testing.assert_array_equal(test.examples, [[9.0, 2, 0, 0]])
    assert test.provenance == ("from a table in memory", "columns left out: new")


def test_conditions_by_name():
    """Columns of numbers are conditions in the order given; what is no number is refused."""
    frame = {"a": [0.5, 1.5, 2.5], "b": [1, 2, 3], "c": [9.0, 8.0, 7.0], "word": ["x", "y", "x"]}
    data = lj.Dataset.from_table(frame, columns={"word": None}, conditions=["c", "b"])
    assert data.columns == ("a",)
    np.testing.assert_array_equal(data.conditions, [[9, 1], [8, 2], [7, 3]])
    one = lj.Dataset.from_table(frame, columns={"word": None}, conditions="b")
    assert one.conditions.shape == (3, 1)
    given = lj.Dataset.from_table(frame, conditions=np.ones((3, 2, 2)))
    assert given.conditions.shape == (3, 2, 2)
    with pytest.raises(TypeError, match=r"'word': expected numbers to condition on.* labels="):
        lj.Dataset.from_table(frame, conditions=["word"])
    with pytest.raises(ValueError, match="did you mean 'word'"):
        lj.Dataset.from_table(frame, conditions=["wird"])
    with pytest.raises(ValueError, match="condition"):
        lj.Dataset.from_table(frame, conditions=np.ones((2, 2)))


def test_labels_and_weights_by_name():
    train = lj.Dataset.from_table(SMALL, labels="city", weights="size")
    assert train.columns == ("rooms", "lift")
    assert train.class_names == ("Bonn", "Rom", "Ulm")
    np.testing.assert_array_equal(train.labels, [2, 0, 2, 1])
    np.testing.assert_array_equal(train.weights, SMALL["size"])
    test = lj.Dataset.from_table(
        {name: values[:1] for name, values in SMALL.items()},
        labels="city",
        columns=train.column_kinds,
        class_names=train.class_names,
    )
    assert test.num_classes == 3
    np.testing.assert_array_equal(test.labels, [2])
    numbered = lj.Dataset.from_table(SMALL, labels=[0, 1, 0, 1], weights=[1.0, 2.0, 1.0, 1.0])
    assert numbered.columns == tuple(SMALL)
    assert lj.Dataset.from_table(SMALL, labels="rooms").labels.tolist() == SMALL["rooms"]


def test_kinds_stay_with_the_rows():
    table = lj.Dataset.from_table(SMALL)
    for part in (table[:2], table.shuffled(0), *lj.data.hold_out(table)):
        assert part.column_kinds == table.column_kinds
    assert lj.data.concatenate([table[:2], table[2:]]).column_kinds == table.column_kinds
    others = [dataclasses.replace(kind) for kind in KINDS]
    others[1] = Integer(0, 9, name="rooms")
    other = lj.Dataset.from_table(SMALL, columns=others)
    with pytest.raises(ValueError, match="differ in column_kinds"):
        lj.data.concatenate([table, other])


def test_a_table_is_shown_with_its_kinds():
    table = lj.Dataset.from_table(SMALL, columns={"size": "positive"})
    assert repr(table) == (
        "Dataset('table', train, n=4, (4,) float64, 1 positive, 1 integer, 2 categorical)"
    )
    html = table._repr_html_()
    assert "rooms (integer 1..3), city (categorical: Bonn, Rom, Ulm)" in html


def test_rows_become_columns():
    table = lj.Dataset.from_table(SMALL)
    columns = lj.data.as_columns(table.examples, table.column_kinds)
    assert {name: values.tolist() for name, values in columns.items()} == SMALL | {
        "lift": [str(value) for value in SMALL["lift"]]
    }
    with pytest.raises(ValueError, match=r"rows of shape \(n, 4\), got \(4, 3\)"):
        lj.data.as_columns(table.examples[:, :3], table.column_kinds)
    with pytest.raises(
        ValueError, match=r"column 'rooms': expected values that are integer 1\.\.3"
    ):
        lj.data.as_columns(table.examples + 0.5, table.column_kinds)


# --- refusals


@pytest.mark.parametrize("value", [None, math.nan, Missing()])
def test_missing_values_are_refused_with_the_column_and_the_row(value):
    for name in ("size", "rooms", "city", "lift"):
        values = np.array(SMALL[name], object)
        values[1] = value
        message = f"column '{name}': expected no missing values, got one at row 1;.*columns="
        with pytest.raises(ValueError, match=message):
            lj.Dataset.from_table(frame(**{name: values}))


@pytest.mark.parametrize("word", ["", "NA", "nan", "null"])
def test_missing_values_of_files(word, tmp_path):
    place = tmp_path / "table.csv"
    place.write_text(f"size,city\n1,Ulm\n{word},Bonn\n{word},Rom\n")
    with pytest.raises(ValueError, match=r"column 'size'.*missing.*row 1 and 1 more"):
        lj.Dataset.from_table(place)
    holes = pyarrow.table({"n": [1, None, 3], "s": ["a", "b", None]})
    parquet.write_table(holes, tmp_path / "holes.parquet")
    with pytest.raises(ValueError, match=r"column 'n'.*missing values, got one at row 1"):
        lj.Dataset.from_table(tmp_path / "holes.parquet")
    with pytest.raises(ValueError, match=r"column 's'.*missing values, got one at row 2"):
        lj.Dataset.from_table(tmp_path / "holes.parquet", columns={"n": None})


ZEROS = [0.0] * 7 + [1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("table", "columns", "error", "message"),
    [
        (SMALL, {"sise": "positive"}, ValueError, "got 'sise'; did you mean 'size'"),
        (SMALL, {"size": "positve"}, ValueError, "'size'.*'positve'; did you mean 'positive'"),
        (SMALL, {"size": "bounded"}, ValueError, r"give the bounds \(low, high\)"),
        (SMALL, {"city": "positive"}, TypeError, "'city': expected numbers.*got 'Ulm' at row 0"),
        (SMALL, {"size": "integer"}, ValueError, "'size'.*integer 0..2, got 0.5 at row 0"),
        (SMALL, {"size": (0, 2)}, ValueError, r"got 2 at row 3: a value on a bound.*\(-0.01, 2.01"),
        (SMALL, {"size": (0, 1)}, ValueError, r"got 1.25 at row 1 \(2 such rows\): correct"),
        (SMALL, {"rooms": Integer(2, 5)}, ValueError, "got 1 at row 0: declare Integer.*wider"),
        (SMALL, {"city": Categorical(("Bonn", "Rome", "Ulm"))}, ValueError, "'Rom' at row 3; did"),
        ({"x": [1.0, -2.0]}, {"x": "positive"}, ValueError, "that are positive, got -2 at row 1"),
        ({"x": [1.0, 0.0]}, {"x": "positive"}, ValueError, "zero has no logarithm"),
        ({"x": [1.0, np.inf]}, None, ValueError, "'x': expected finite numbers, got inf at row 1"),
        ({"x": [1.5, 1.5, 1.5]}, None, ValueError, r"all 3 are 1.5.*columns=\{'x': None\}"),
        ({"x": ["a", "a"]}, None, ValueError, "'x': expected values that vary, all 2 are a"),
        ({"x": [3, 3]}, {"x": "integer"}, ValueError, "expected values that vary"),
        ({"x": ZEROS}, None, ValueError, "70% of the rows hold 0, where a density grows without"),
        ({"x": [0, 2**24]}, {"x": "integer"}, ValueError, "'x'.*16777216 at row 1.*offset"),
        ({"x": [0, 2**60]}, None, ValueError, r"'x': expected integers up to 2\*\*53"),
        ({"x": ["1", "2", "x"]}, None, ValueError, "numbers as in most rows, got 'x' at row 2"),
        ({"x": [f"id {i}" for i in range(300)]}, None, ValueError, "at most 256 categories"),
        ({"x": ["a", math.nan]}, None, ValueError, "'x': expected no missing values.*row 1"),
        ({"x": [1, "a"]}, None, TypeError, "one type, got 1 at row 0 and 'a' at row 1"),
        ({"x": np.zeros(2, "M8[s]")}, None, TypeError, "'x'.*turn times into numbers"),
        ({"x": np.zeros(2, complex)}, None, TypeError, "'x': expected numbers or words"),
        ({"x": [{}, {}]}, None, TypeError, "'x': expected numbers or words, got dict"),
        ({"x": np.zeros((2, 2))}, None, ValueError, "one value a row"),
        ({"x": [1, 2], "y": [1]}, None, ValueError, "one length"),
        ({"x": []}, None, ValueError, "at least 1"),
        ({}, None, ValueError, "with columns, got none"),
        (SMALL, dict.fromkeys(SMALL), ValueError, "columns to model, got none"),
        (
            {"a": [1, 2]},
            KINDS,
            ValueError,
            "expected the name of a column, got 'size'; there are a",
        ),
    ],
)
def test_refused(table, columns, error, message):
    with pytest.raises(error, match=message):
        lj.Dataset.from_table(table, columns=columns)


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (np.zeros((3, 2)), {}, TypeError, "got ndarray: lj.Dataset.from_array"),
        (lj.Dataset.from_array(np.zeros((3, 2))), {}, TypeError, "used as it is"),
        (SMALL, {"columns": "positive"}, TypeError, "a mapping from names to kinds.*got str"),
        (SMALL, {"columns": [Positive()]}, TypeError, "kinds with names"),
        (SMALL, {"columns": {"size": 3}}, TypeError, r"bounds \(low, high\), got 3"),
        (SMALL, {"labels": "town"}, ValueError, "got 'town'"),
        (SMALL, {"labels": "city", "class_names": ["Ulm", "Bonn"]}, ValueError, "'Rom' at row 3"),
        (SMALL, {"weights": "city"}, ValueError, "could not convert|positive finite weights"),
        (SMALL, {"split": "tain"}, ValueError, "did you mean 'train'"),
    ],
)
def test_refused_arguments(source, options, error, message):
    with pytest.raises(error, match=message):
        lj.Dataset.from_table(source, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x,y\n1,2\n3\n", "2 entries in every row, row 1 has 1"),
        ("a.csv", b"1,2\n3,4\n", "first line of names, got the numbers 1, 2"),
        ("a.csv", b",x\n0,1\n", "column 0 has no name.*index=False"),
        ("a.csv", b"x,x\n0,1\n", "different names, got 'x' twice"),
        ("a.csv", b"x,y\n", "rows below it"),
        ("a.csv", b"x,y\n\xff\xfe,1\n", "not text in UTF-8"),
        ("a.csv.gz", b"x,y\n1,2\n", "damaged"),
        ("a.parquet", b"PAR1 nothing", "not a readable Parquet file"),
        ("a.xlsx", b"", "by its ending, one of .csv"),
    ],
)
def test_damaged_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=message):
        lj.Dataset.from_table(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        lj.Dataset.from_table(tmp_path / "table.csv")


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bounded(1, 1), "Bounded.low below Bounded.high, got 1 and 1"),
        (lambda: Integer(3, 2), "Integer.low below Integer.high"),
        (lambda: Integer(high=3), "expected Integer.low for Integer.high=3"),
        (lambda: Integer(0, 2**24), r"within|below 2\*\*24"),
        (lambda: Categorical(("a",)), "at least two different names, got a"),
        (lambda: Categorical(("a", "b", "a")), "at least two different names"),
        (lambda: lj.build(lj.models.TabularConfig(), key=0), "columns=train.column_kinds"),
        (lambda: lj.models.Tabular(lj.models.Uniform((2,)), KINDS), r"event shape \(4,\)"),
    ],
)
def test_kinds_and_models_that_are_none(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.untyped
def test_what_is_no_model_of_vectors():
    with pytest.raises(TypeError, match=r"TabularConfig\.model to be the config"):
        lj.models.TabularConfig(KINDS, model=3)
    integers = lj.models.Dequantized(lj.models.Uniform((4,)), 4)
    with pytest.raises(TypeError, match="continuous density of real vectors"):
        lj.models.Tabular(integers, KINDS)
    with pytest.raises(TypeError, match="columns"):
        lj.models.Tabular(lj.models.Uniform((4,)), ["positive"] * 4)


# --- tables that are hard: a huge offset, a constant column


def test_a_huge_offset_is_refused_with_the_remedy():
    """And the remedy moves continuous columns only, and leaves log p as it is."""
    n = 200
    times = {"t": 1e9 + RNG.normal(size=n), "n": RNG.integers(0, 4, n)}
    table = lj.Dataset.from_table(times)
    density = normal(table.column_kinds)
    message = r"column 0 \('t'\) has the mean 1000000000.*subtract\(offset\)"
    with pytest.raises(ValueError, match=message):
        lj.evaluate(density, table, key=0)
    offset = table.column_means()
    assert offset[1] == 0
    moved = table.subtract(offset)
    moved.check_precision()
    fitted = density.initialize(moved.examples, 0)
    value = lj.evaluate(fitted, moved, key=0, draws=8).mean
    assert -4.5 < value < -2.5
    with pytest.raises(ValueError, match=r"offset of 0 for column 'n', which is integer 0\.\.3"):
        table.subtract(1.0)


def test_a_value_that_rounds_to_its_bound_is_refused():
    table = lj.Dataset.from_table({"x": [0.5, 0.3, 1 - 1e-12]}, columns={"x": (0, 1)})
    with pytest.raises(ValueError, match=r"column 'x': expected values.*got 1 at row 2"):
        table.check_precision()
    table.check_precision(np.float64)


def test_a_constant_column_that_is_declared_keeps_its_scale():
    table = {"x": RNG.normal(size=50), "c": np.full(50, 3.3)}
    data = lj.Dataset.from_table(table, columns={"c": Continuous()})
    fitted = normal(data.column_kinds).initialize(data.examples, 0)
    alone = lj.Dataset.from_table(table, columns={"c": None})
    other = normal(alone.column_kinds).initialize(alone.examples, 0)
    both = fitted.log_prob(data.examples)
    np.testing.assert_allclose(
        both, other.log_prob(alone.examples) + scipy.stats.norm.logpdf(0), rtol=1e-4
    )


# --- closed forms


def normal(columns) -> lj.models.Tabular:
    d = len(columns)
    inner = lj.models.FullGaussian(jnp.zeros(d), jnp.eye(d), (d,))
    return lj.models.Tabular(inner, tuple(columns))


@pytest.mark.parametrize(
    ("column", "oracle"),
    [
        (Continuous(), scipy.stats.norm()),
        (Positive(), scipy.stats.lognorm(1)),
        (Continuous("heavy"), scipy.stats.johnsonsu(0, 1)),
        (Bounded(-1, 3), scipy.stats.johnsonsb(0, 1, loc=-1, scale=4)),
    ],
    ids=["normal", "log-normal", "sinh-normal", "logit-normal"],
)
def test_closed_forms(column, oracle):
    """A standard normal behind each map is a known distribution."""
    density = normal([column])
    assert density.kind is lj.Kind.EXACT
    x = oracle.ppf(np.linspace(0.001, 0.999, 41)).astype("f4")
    np.testing.assert_allclose(density.log_prob(x[:, None]), oracle.logpdf(x), atol=2e-5)
    samples = np.asarray(density.sample(KEY, 4000))[:, 0]
    assert scipy.stats.kstest(samples, oracle.cdf).pvalue > 0.01


def masses(column, values):
    """Exact mass of each integer: the normal's cdf at the images of the ends of its cell."""
    low, high = column.interval
    ends = np.stack([values, values + 1]).astype(float)
    with np.errstate(divide="ignore"):
        if np.isfinite(high):
            images = np.log(ends - low) - np.log(high - ends)
        elif np.isfinite(low):
            images = np.log(ends - low)
        else:
            images = np.arcsinh(ends) if column.has_heavy_tails else ends
    return np.diff(scipy.stats.norm.cdf(images), axis=0)[0]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (Integer(2, 6), np.arange(2, 7)),
        (Categorical(("a", "b", "c")), np.arange(3)),
        (Integer(1), np.arange(1, 60)),
        (Integer(), np.arange(-6, 6)),
        (Integer(tails="heavy"), np.arange(-40, 40)),
    ],
    ids=["range", "categories", "counts", "integers", "heavy"],
)
def test_masses(column, values):
    """The masses of all values are exact in the mean over the noise, and sum to 1; samples have
    them."""
    density = normal([column])
    assert density.kind is lj.Kind.BOUND
    exact = masses(column, values)
    assert exact.sum() == pytest.approx(1, abs=1e-4)
    draws = 4000
    x = np.broadcast_to(values[:, None].astype("f4"), (draws, len(values), 1))
    weights = np.exp(np.asarray(density.log_prob(x, key=KEY), np.float64))
    error = weights.std(0) / math.sqrt(draws)
    assert (np.abs(weights.mean(0) - exact) < 5 * error + 1e-6).all()
    assert weights.sum(1).mean() == pytest.approx(
        1, abs=5 * weights.sum(1).std() / math.sqrt(draws)
    )
    samples = np.asarray(density.sample(KEY, 4000))[:, 0]
    shares = np.array([(samples == value).mean() for value in values])
    assert np.isin(samples, values).mean() > 0.999
    assert (np.abs(shares - exact) < 5 * np.sqrt(exact / 4000) + 1e-3).all()


def test_a_mixed_table_is_density_times_mass():
    """With independent columns the log-probabilities add, in any order of the columns."""
    columns = (Positive(), Integer(0, 3), Bounded(0, 10))
    density = normal(columns)
    x = np.array([[0.7, 2, 4.0], [3.0, 0, 9.5]], "f4")
    exact = scipy.stats.lognorm(1).logpdf(x[:, 0]) + np.log(masses(columns[1], x[:, 1]))
    exact += scipy.stats.johnsonsb(0, 1, scale=10).logpdf(x[:, 2])
    np.testing.assert_allclose(density.log_prob(x, key=KEY, draws=2000), exact, atol=0.02)


@pytest.mark.parametrize("kind", ["positive", "continuous"])
def test_other_units_shift_the_nats(kind):
    """Of a table in thousandths log p is less by log 1000 per row, and nothing else changes."""
    x = np.exp(RNG.normal(size=300))
    means = []
    for unit in (1, 1000):
        table = lj.Dataset.from_table({"x": unit * x}, columns={"x": kind})
        fitted = normal(table.column_kinds).initialize(table.examples, 0)
        means.append(lj.evaluate(fitted, table).mean)
    assert means[0] - means[1] == pytest.approx(math.log(1000), abs=1e-5)


def test_the_standardized_normal_is_fitted():
    """After ``initialize`` a positive column is the log-normal of its own moments."""
    x = np.exp(2 + 0.5 * RNG.normal(size=500))
    table = lj.Dataset.from_table({"x": x}, columns={"x": "positive"})
    fitted = normal(table.column_kinds).initialize(table.examples, 0)
    logs = np.log(x)
    oracle = scipy.stats.lognorm(logs.std(), scale=np.exp(logs.mean()))
    np.testing.assert_allclose(fitted.log_prob(table.examples), oracle.logpdf(x), atol=1e-4)


def test_heavy_tails_are_drawn_in():
    """A standardized normal of a Cauchy column is near its entropy, log(4 pi), not at the outliers;
    with light tails it is far off."""
    x = RNG.standard_cauchy(4000)
    table = lj.Dataset.from_table({"x": x})
    assert table.column_kinds == (Continuous("heavy", name="x"),)
    assert "column 'x' taken as continuous with heavy tails" in table.provenance
    heavy = normal(table.column_kinds).initialize(table.examples, 0)
    light = normal([Continuous()]).initialize(table.examples, 0)
    mean = float(np.mean(heavy.log_prob(table.examples)))
    assert -np.log(4 * np.pi) - 0.15 < mean < -np.log(4 * np.pi) + 0.1
    assert float(np.mean(light.log_prob(table.examples))) < mean - 1


def test_counts_far_from_zero_keep_their_noise():
    """Half of a cell is half of its mass, also where single precision holds no fractions."""
    offset = 2**23
    x = (offset + RNG.integers(0, 9, 400)).astype("f4")[:, None]
    for column in (Integer(offset, offset + 8), Integer()):
        fitted = normal([column]).initialize(x, 0)
        draws = fitted.log_prob_draws(x[:3], key=KEY, draws=50)
        assert len(np.unique(draws[:, 0])) > 40


# --- the support


def outside():
    """Rows of the mixed table, each with one value that its column cannot take, and its name."""
    bad = {
        "size": [0.0, -1.0, np.inf],
        "share": [-1.0, 3.0, 4.0],
        "rating": [0, 7, 2.5],
        "count": [-1, 0.5],
        "level": [0.25, np.inf],
        "color": [-1, 3, 0.5],
        "x": [np.inf],
    }
    names = [column.name for column in MIXED]
    for name, values in bad.items():
        for value in values:
            row = rows_of(MIXED, 1)[0]
            row[names.index(name)] = value
            yield row


def test_rows_outside_of_the_support():
    """They have the log-probability minus infinity, traced too, and no gradient of NaN; a row with
    a NaN has NaN."""
    density = normal(MIXED)
    good = rows_of(MIXED, 1)
    rows = np.concatenate([good, np.stack(list(outside()))])
    log_prob = np.asarray(density.log_prob(rows, key=KEY))
    assert np.isfinite(log_prob[0])
    assert np.isneginf(log_prob[1:]).all()
    traced = jax.jit(lambda x: density.log_prob(x, key=KEY))(rows)
    np.testing.assert_allclose(traced, log_prob, rtol=1e-5)
    missing = np.repeat(good, len(MIXED), 0)
    np.fill_diagonal(missing, np.nan)
    assert np.isnan(density.log_prob(missing, key=KEY)).all()
    gradient = jax.jit(jax.grad(lambda x: density.log_prob(x, key=KEY).sum()))(jnp.asarray(rows))
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match=r"'rating': expected values that are integer 1\.\.6"):
        density.initialize(np.where(np.arange(len(MIXED)) == 4, 9, good), 0)


def test_the_log_det_is_that_of_the_jacobian():
    density = normal(MIXED).initialize(rows_of(MIXED, 50), 0)
    noise = jnp.full(len(MIXED), 0.3)
    x = jnp.asarray(rows_of(MIXED, 5, seed=2))

    @jax.jit
    @jax.vmap
    def both(row):
        _, log_det = density.maps.forward(row, noise)
        return log_det, jax.jacfwd(lambda row: density.maps.forward(row, noise)[0])(row)

    log_det, jacobian = both(x)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-4)


def test_samples_are_raw_rows():
    """All of them have a probability, also far out in the tails; maps are undone; failures show."""
    density = normal(MIXED).initialize(rows_of(MIXED, 200), 0)
    samples = np.asarray(density.sample(KEY, 500, temperature=3.0))
    assert not np.isneginf(density.log_prob(samples, key=KEY)).any()
    columns = lj.data.as_columns(samples, MIXED)
    assert set(columns["color"]) == {"blue", "green", "red"}
    assert set(columns["rating"]) == set(range(1, 7))
    assert columns["size"].min() > 0
    x = jnp.asarray(rows_of(MIXED, 20))
    noise = jnp.full(len(MIXED), 0.5)
    inverse = jax.jit(jax.vmap(density.maps.inverse))
    forward = jax.jit(jax.vmap(lambda row: density.maps.forward(row, noise)[0]))
    np.testing.assert_allclose(inverse(forward(x)), x, rtol=1e-5, atol=1e-5)
    extreme = np.asarray(inverse(jnp.full(x.shape, 1e4)))
    for column, values in zip(MIXED, extreme.T, strict=True):
        assert (column.holds(values) | np.isinf(values)).all(), column
    assert np.isnan(inverse(jnp.full(x.shape, jnp.inf))).all()


# --- what does not fit


def test_tables_and_densities_that_do_not_fit():
    table = lj.Dataset.from_table(SMALL)
    plain = lj.models.FullGaussian(jnp.zeros(4), jnp.eye(4), (4,))
    with pytest.raises(ValueError, match=r"discrete columns of 'table' \(rooms, city, lift\)"):
        lj.evaluate(plain, table)
    others = (KINDS[0], Integer(0, 9, name="rooms"), *KINDS[2:])
    with pytest.raises(
        ValueError, match=r"Integer\(name='rooms', low=1.*columns=density.column_ki"
    ):
        lj.evaluate(normal(others), table, key=0)
    unnamed = [dataclasses.replace(kind, name="") for kind in KINDS]
    assert lj.evaluate(normal(unnamed), table, key=0).n == 4
    assert lj.evaluate(normal(KINDS), table.examples, key=0).n == 4
    positive = lj.Dataset.from_table({"x": [1.0, 2.0, 4.0]}, columns={"x": "positive"})
    line = lj.models.FullGaussian(jnp.zeros(1), jnp.eye(1), (1,))
    assert lj.evaluate(line, positive).n == 3


# --- a run


def mixed_frame(n=600):
    rng = np.random.default_rng(3)
    city = rng.choice(["Ulm", "Bonn", "Rom"], n, p=[0.6, 0.3, 0.1])
    size = np.exp(rng.normal(size=n) * 0.4 + 3 * (city == "Rom"))
    return {
        "size": size,
        "share": rng.beta(0.5, 0.5, n).clip(1e-3, 1 - 1e-3),
        "rooms": rng.poisson(np.sqrt(size)).clip(0, 9),
        "city": city,
    }


def test_a_run_of_a_mixed_table(tmp_path):
    """It is trained, evaluated in nats, saved, restored with its columns, and sampled from."""
    table = lj.Dataset.from_table(mixed_frame(), columns={"size": "positive", "share": (0, 1)})
    train, validation, test = lj.data.split(table)
    flow = lj.models.MAFConfig(dimensions=4, depth=1, width=8, blocks=0, linear=False)
    experiment = lj.Experiment(
        model=lj.models.TabularConfig(table.column_kinds, flow),
        optimizer=lj.Optimizer(learning_rate=2e-2),
        batch_size=64,
        steps=150,
        log_every=10,
        validate_every=75,
        ema_decay=0.9,
    )
    run = lj.fit(experiment, train, validation=validation, workdir=tmp_path / "run", key=0)
    losses = [record["loss"] for record in run.history if "loss" in record]
    assert losses[-1] < losses[0] - 0.05
    evaluation = lj.evaluate(run.density, test, key=1, draws=4)
    assert str(evaluation).startswith("log p >= -")
    assert "nats (bound, 4 draws, n = 60, table test)" in str(evaluation)
    assert evaluation.bits_per_dim is None
    restored = lj.restore(tmp_path / "run")
    assert restored.column_kinds == table.column_kinds
    assert lj.evaluate(restored, test, key=1, draws=4).mean == evaluation.mean
    lj.save(restored, tmp_path / "saved")
    again = lj.restore(tmp_path / "saved")
    np.testing.assert_array_equal(again.sample(KEY, 50), run.density.sample(KEY, 50))
    samples = lj.data.as_columns(run.density.sample(KEY, 50), again.column_kinds)
    other = lj.Dataset.from_table(samples, columns=again.column_kinds, name="samples")
    assert lj.evaluate(again, other, key=2).impossible == 0


def test_reports_know_the_kinds_of_the_columns():
    """A table of other kinds is another representation, for which no scores are compared."""
    table = lj.Dataset.from_table(SMALL)
    assert table.representation()["columns"].startswith("1 continuous, 1 integer, 2 categorical (")
    assert "columns" not in lj.Dataset.from_array(table.examples).representation()
    wider = [KINDS[0], Integer(0, 9, name="rooms"), *KINDS[2:]]
    other = lj.Dataset.from_table(SMALL, columns=wider)
    assert other.representation() != table.representation()
