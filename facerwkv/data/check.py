"""Whether a copy of a data set is whole, readable and free of leaks: for `facerwkv data`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facerwkv.data.datasets import DATASETS
from facerwkv.data.leaks import Leaks, compare, fingerprints
from facerwkv.data.load import load_dataset
from facerwkv.data.samples import Dataset, Split

SHOWN = 10
"""Lines of a kind that are printed; `to_dict` has them all."""


@dataclass(frozen=True)
class Report:
    """What `check` found.

    counts: images by split and class. published: what the authors name. missing: splits with fewer images than that.
    unreadable: files that are no images, with the reason. problems: rows and folders that were left out.
    """

    dataset: Dataset
    counts: Mapping[Split, Mapping[str, int]]
    published: Mapping[Split, int]
    unreadable: list[str]
    leaks: Leaks | None

    @property
    def totals(self) -> dict[Split, int]:
        return {split: sum(classes.values()) for split, classes in self.counts.items()}

    @property
    def missing(self) -> list[str]:
        return [
            f"{split} has {self.totals.get(split, 0):,} images, {count:,} are published."
            for split, count in self.published.items()
            if self.totals.get(split, 0) < count
        ]

    @property
    def imbalance(self) -> dict[Split, float]:
        """Images of the largest class per image of the smallest that has any."""
        sizes = {split: [count for count in classes.values() if count] for split, classes in self.counts.items()}
        return {split: round(max(counts) / min(counts), 2) for split, counts in sizes.items()}

    @property
    def ok(self) -> bool:
        """Nothing is missing, unreadable or left out. Leaks are the authors' and do not count."""
        return not (self.missing or self.unreadable or self.dataset.problems)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.dataset.spec.name,
            "root": str(self.dataset.root),
            "ok": self.ok,
            "images": self.totals,
            "classes": {split: dict(classes) for split, classes in self.counts.items()},
            "published": dict(self.published),
            "imbalance": self.imbalance,
            "missing": self.missing,
            "unreadable": self.unreadable,
            "problems": self.dataset.problems,
            "leaks": self.leaks.to_dict() if self.leaks else None,
        }

    def print(self) -> None:
        """A table of the counts, then a line for each fault and leak, to standard output."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("class", title=f"{self.dataset.spec.name} in {self.dataset.root}", title_justify="left")
        for split in self.counts:
            table.add_column(split, justify="right")
        for label in self.dataset.labels:
            table.add_row(Text(label), *(f"{classes[label]:,}" for classes in self.counts.values()))
        table.add_section()
        table.add_row("all", *(f"{total:,}" for total in self.totals.values()))
        if self.published:
            table.add_row("published", *(f"{self.published.get(split, 0):,}" for split in self.counts))
        table.add_row("largest : smallest", *(f"{ratio:g}" for ratio in self.imbalance.values()))
        console = Console(markup=False, soft_wrap=True)
        console.print(table, *map(Text, self._lines()), sep="\n")

    def _lines(self) -> list[str]:
        lines = []
        kinds = {"Missing": self.missing, "Unreadable": self.unreadable, "Left out": self.dataset.problems}
        for kind, those in kinds.items():
            more = [f"and {len(those) - SHOWN:,} more"] if len(those) > SHOWN else []
            lines += [f"{kind}: {line}" for line in those[:SHOWN] + more]
        if self.leaks:
            for kind, pairs in {"an exact copy": self.leaks.exact, "a near copy": self.leaks.near}.items():
                for (split, other), copies in pairs.items():
                    same = sum(copy.same_label for copy in copies)
                    example = f", for example {copies[0].name} and {copies[0].of}." if copies else "."
                    lines.append(
                        f"Leak: {len(copies):,} images of {split} have {kind} in {other}, {same:,} with the same label"
                        + example
                    )
            lines += [
                f"Within {split} {count:,} images repeat another, {self.leaks.contradicting[split]:,} of them under "
                "another label."
                for split, count in self.leaks.within.items()
            ]
        return [*lines, f"Terms: {self.dataset.spec.terms}"]


def check(source: str | Dataset, leaks: bool = False) -> Report:
    """Count the images of a data set against the published numbers and open every file; it goes on past bad ones.

    With `leaks` also look for exact and near copies across splits; files that an earlier search has opened, and that
    are as they were, are then not opened again. Raises InputError as `load_dataset` does.
    """
    dataset = source if isinstance(source, Dataset) else _load(source)
    splits = dataset.splits
    if not leaks:  # only a file can be unreadable
        splits = {split: [each for each in those if isinstance(each.image, Path)] for split, those in splits.items()}
    prints = fingerprints(splits, anew=not leaks)
    counts = {}
    for split, samples in dataset.splits.items():
        present = Counter(sample.label for sample in samples)
        counts[split] = {label: present[label] for label in dataset.labels}
    published = dict(dataset.spec.published)
    if "val" in published and "val" not in counts:  # FER2013's mirror: the published validation images are in test
        published["test"] += published.pop("val")
    unreadable = [each.problem for those in prints.values() for each in those if each.problem]
    return Report(dataset, counts, published, unreadable, compare(prints) if leaks else None)


def _load(source: str) -> Dataset:
    """Classes that a model could not be trained on, too: of your own data those that occur, of others also the rest."""
    spec = DATASETS.get(source.partition(":")[0])
    dataset = load_dataset(source, known=spec.labels if spec else None)
    there = {sample.label for samples in dataset.splits.values() for sample in samples}
    own = spec is not None and spec.source.startswith("your own")
    return replace(dataset, labels=tuple(label for label in dataset.labels if label in there or not own))


def describe_all() -> list[dict[str, Any]]:
    """Every line of DATASETS in plain values, as `data list --json` prints them."""
    return [
        {
            "name": spec.name,
            "labels": list(spec.labels),
            "published": dict(spec.published),
            "layout": spec.layout,
            "terms": spec.terms,
            "source": spec.source,
        }
        for spec in DATASETS.values()
    ]


def print_all() -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(markup=False)
    for spec in DATASETS.values():
        images = "  ".join(f"{split} {count:,}" for split, count in spec.published.items())
        console.print(Text.assemble((spec.name, "bold"), f"  {len(spec.labels)} classes  {images}"))
        for line in (spec.layout, f"{spec.terms} {spec.source}"):
            console.print(Padding(Text(line), (0, 0, 0, 4)))
