"""The published figures of each paper, as data: `hemalum/published/PAPER.yaml`.

Figures are kept as text, digit by digit as printed; `number_of` turns one into a number. Everything that decides how
a figure came about carries a tag: the paper states it, its public code does (`code`), it is forced by arithmetic on
printed numbers (`derived`), or nobody says (`unknown`), and then `reading` is what we take.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hemalum.errors import HemalumError, nearest
from hemalum.settings import Strict, settings_at

_SHIPPED = Path(__file__).resolve().parents[1] / "published"

Tag = Literal["stated", "code", "derived", "unknown"]
Averaging = Literal["pooled", "per_image", "support_weighted"]
METRICS = (
    "pixel.precision",
    "pixel.recall",
    "pixel.dice",
    "pixel.iou",
    "boundary.hd95_px",
    "boundary.assd_px",
    "boundary.boundary_f1",
    "instance.aji",
    "instance.pq",
    "semantic.precision",
    "semantic.recall",
    "semantic.f1",
    "semantic.miou",
    "curve.best_dice",
    "cost.parameters",
    "cost.macs_per_px",
    "cost.macs_at_outputs_per_px",
)
_NUMBER = r"[+-]?\d*\.?\d+"
_PRINTED = re.compile(rf"(?P<about>[~<>]?)(?P<number>{_NUMBER})(?P<span>\.\.\d*\.?\d+)?")


def _printed(value: object) -> object:
    if value in ("", "~"):
        return None
    if not isinstance(value, str) or not _PRINTED.fullmatch(value):
        raise ValueError("want a number as printed (0.810, ~77, >80, +1.0..1.3), or ~ where none is printed")
    return value


Printed = Annotated[str | None, BeforeValidator(_printed)]


def number_of(text: str | None) -> float | None:
    """The number that was printed; None where there is none, a span, or only a limit."""
    match = _PRINTED.fullmatch(text) if text is not None else None
    if match is None or match["span"] or match["about"] in ("<", ">"):
        return None
    return float(match["number"])


class Item(Strict):
    """One choice of the paper's protocol."""

    statement: str
    tag: Tag
    reading: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """What the paper says, and what is noted on it."""
        return "; ".join(part for part in (self.statement, self.note) if part)


class Split(Strict):
    """How the paper divides its data; `by` is what is kept together, `counts` or `fractions` are train, val, test."""

    by: Literal["image", "group"]
    counts: tuple[int, int, int] | None = None
    fractions: tuple[float, float, float] | None = None
    stratify: Literal["organ", "stain"] | None = None
    tag: Tag
    note: str = ""

    @property
    def text(self) -> str:
        """The split in words."""
        sizes = "/".join(map(str, self.counts or self.fractions or ()))
        return f"by {self.by}, {sizes}" + (f"; {self.note}" if self.note else "")

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.counts is None) == (self.fractions is None):
            raise ValueError("want counts or fractions")
        if self.fractions is not None and abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError("fractions must sum to 1")
        return self


class Data(Strict):
    """A dataset of a paper. `formats` are what `hemalum import` may have read it as.

    `stand_in` is the dataset that is run in the place of a private one; or one's own is, of these formats.
    """

    title: str
    formats: list[str]
    get: str
    split: Split
    private: bool = False
    stand_in: str | None = None
    protocol: dict[str, Item] = Field(default_factory=dict)


class Column(Strict):
    """A printed column. `metric` is None where our evaluation has none; ours times `scale` is in its unit.

    With `share_saved` a row's figure is the share of an error that it saves: (b - a) / b of its recipe's a and the b
    of what is taken off (`minus`). The error is the metric, or 1 less of one that is better the higher it is.
    `variant` stands in the place of {} in the recipes of a row that is printed for several.
    """

    name: str
    dataset: str | None = None
    metric: str | None = None
    scale: float = 1.0
    share_saved: bool = False
    variant: str = ""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.metric is not None and self.metric not in METRICS:
            raise ValueError(f"unknown metric '{self.metric}'{nearest(self.metric, METRICS)}")
        if self.metric is not None and not self.metric.startswith("cost.") and self.dataset is None:
            raise ValueError("a metric needs the dataset that it is measured on")
        if self.share_saved and self.metric is None:
            raise ValueError("a share needs the metric that it is of")
        return self


class Row(Strict):
    """A printed row: a figure for each column, `~` where none is printed.

    `recipe` is the shipped recipe that imitates it; `averaging` is the row's own, where it differs from the table's.
    `minus` is the recipe of what is taken off, where a difference is printed. {} in both is the column's variant.
    Where a mean over base networks is printed, `over` names them, and {base} in the recipes is each of them; the sd
    is then the one over bases. `organs` says of which organ's images the figure is, by the names that datasets have
    for it; `otherwise` how a row that no recipe imitates can be had.
    """

    method: str
    values: list[Printed]
    sd: list[Printed] | None = None
    recipe: str | None = None
    minus: str | None = None
    over: list[str] = Field(default_factory=list)
    organs: list[str] = Field(default_factory=list)
    otherwise: str = ""
    averaging: Averaging | None = None
    tag: Tag | None = None
    note: str = ""

    @model_validator(mode="after")
    def _bases_named(self) -> Self:
        named = any("{base}" in recipe for recipe in (self.recipe, self.minus) if recipe is not None)
        if named != bool(self.over):
            raise ValueError(f"row '{self.method}': {{base}} in a recipe and the bases in 'over' go together")
        return self

    def is_run(self, printed: str | None) -> bool:
        """Whether its figure of a column, as `printed`, is run: not where it varies and this alone has none."""
        unprinted = all(value is None for value in self.values)
        return printed is not None or not self.varies or bool(self.over) or unprinted

    @property
    def varies(self) -> bool:
        """Whether its recipes depend on the column."""
        return any("{}" in recipe for recipe in (self.recipe, self.minus) if recipe is not None)

    def recipes_of(self, column: Column) -> list[str]:
        """The recipes behind a figure, each base's in turn; none where the row has none."""
        return [recipe for recipes in self.recipes_by_base(column).values() for recipe in recipes]

    def recipes_by_base(self, column: Column) -> dict[str, list[str]]:
        """For each base the recipe behind a figure, and that of what is taken off; one base, "", for most rows."""
        recipes = [recipe.replace("{}", column.variant) for recipe in (self.recipe, self.minus) if recipe is not None]
        return {base: [recipe.replace("{base}", base) for recipe in recipes] for base in self.over or [""]}


class PublishedTable(Strict):
    """A table as printed. `averaging` is that of its pixel columns; a row may have its own."""

    id: str
    title: str
    averaging: Averaging | None = None
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        for row in self.rows:
            for name, figures in (("values", row.values), ("sd", row.sd)):
                if figures is not None and len(figures) != len(self.columns):
                    raise ValueError(
                        f"row '{row.method}' has {len(figures)} {name}, the table {len(self.columns)} columns"
                    )
        if len({row.method for row in self.rows}) < len(self.rows):
            raise ValueError("two rows have one name")
        if len({(column.dataset, column.name) for column in self.columns}) < len(self.columns):
            raise ValueError("two columns of one dataset have one name")
        if self.averaging is None and any(c.metric and not c.metric.startswith("cost.") for c in self.columns):
            raise ValueError("a table with metrics needs an averaging")
        for row in self.rows:
            bare = [column.name for column in self.columns if column.metric and not column.variant]
            shares = [column.name for column in self.columns if column.share_saved]
            if shares and row.recipe is not None and row.minus is None:
                raise ValueError(f"column '{shares[0]}' is a share saved: row '{row.method}' needs minus")
            if row.varies and bare:
                raise ValueError(f"row '{row.method}' has {{}} in its recipe, column '{bare[0]}' no variant")
        return self

    @property
    def datasets(self) -> list[str]:
        """The datasets of its columns, in their order."""
        return list(dict.fromkeys(column.dataset for column in self.columns if column.dataset is not None))

    @property
    def recipes(self) -> list[str]:
        """The recipes of the rows that can be run, each once, in the order of the rows."""
        return self._recipes_of(self.columns)

    def recipes_on(self, dataset: str) -> list[str]:
        """Those of them that a dataset's columns want; columns without one go with the first."""
        first = self.datasets[:1] == [dataset]
        return self._recipes_of([c for c in self.columns if c.dataset == dataset or (first and c.dataset is None)])

    def _recipes_of(self, columns: Sequence[Column]) -> list[str]:
        return list(
            dict.fromkeys(
                recipe
                for row in self.rows
                for column, printed in zip(self.columns, row.values, strict=True)
                if column in columns and column.metric is not None and row.is_run(printed)
                for recipe in row.recipes_of(column)
            )
        )

    @property
    def runnable(self) -> list[str]:
        """The methods of the rows that can be run."""
        return [row.method for row in self.rows if row.recipe is not None]


class Paper(Strict):
    """All that a paper prints. `name` is that of its file; `figures` says where they were taken from."""

    name: str
    title: str
    citation: str
    doi: str = ""
    url: str = ""
    figures: str
    datasets: dict[str, Data]
    protocol: dict[str, Item]
    tables: list[PublishedTable] = Field(min_length=1)
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _datasets_exist(self) -> Self:
        for table in self.tables:
            for name in table.datasets:
                if name not in self.datasets:
                    raise ValueError(f"table '{table.id}': no dataset '{name}'{nearest(name, self.datasets)}")
        for name, data in self.datasets.items():
            if data.stand_in is not None and data.stand_in not in self.datasets:
                raise ValueError(f"dataset '{name}': no dataset '{data.stand_in}' to stand in for it")
        if len({table.id for table in self.tables}) < len(self.tables):
            raise ValueError("two tables have one id")
        return self

    def table(self, id: str) -> PublishedTable:
        """A table by its id. Raises HemalumError naming the nearest."""
        for table in self.tables:
            if table.id == id:
                return table
        raise HemalumError(f"{self.name} has no table '{id}'{nearest(id, [table.id for table in self.tables])}")

    def runs_on(self, dataset: str, at_hand: Collection[str] = ()) -> str:
        """The dataset that is run for `dataset`: itself, or what stands in for a private one that is not at hand."""
        return dataset if dataset in at_hand else self.datasets[dataset].stand_in or dataset


def papers() -> dict[str, Path]:
    """Name → file of every paper, sorted by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


def load_paper(paper: str | Path) -> Paper:
    """Read and check a paper's figures: the name of one that ships, or a file.

    Raises HemalumError naming the nearest paper, or the field that is wrong.
    """
    path = Path(paper)
    if path.suffix not in (".yaml", ".yml"):
        shipped = papers()
        if str(paper) not in shipped:
            raise HemalumError(f"no paper '{paper}'{nearest(str(paper), shipped)}")
        path = shipped[str(paper)]
    try:
        # the safe loader that builds nothing but text, lists and mappings: 0.810 keeps its last digit
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HemalumError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise HemalumError(f"{path} is not a paper's figures: it must be a mapping of keys")
    try:
        return Paper.model_validate({"name": path.stem} | content)
    except ValidationError as error:
        # a key that is misspelled is missing as well
        first = next((one for one in error.errors() if one["type"] == "extra_forbidden"), error.errors()[0])
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = {key for part in settings_at(Paper, first["loc"][:-1]) for key in part.model_fields}
            raise HemalumError(f"{path}: unknown key '{where}'{nearest(str(first['loc'][-1]), known)}") from error
        message = str(first["msg"]).removeprefix("Value error, ")
        raise HemalumError(f"{path}: '{where}': {message}" if where else f"{path}: {message}") from error
