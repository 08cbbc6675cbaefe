"""Runs on disk, one JSON file each, so that a sweep can be stopped and taken up again."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import planner


@dataclass(frozen=True, order=True)
class Setting:
    """What tells a run from others; ``budget`` of the dense model is empty."""

    task: str
    model: str
    method: str
    budget: str
    seed: int
    epochs: float

    @property
    def file(self) -> str:
        parts = [self.task, self.model, self.method, self.budget.replace("%", "pct") or "all"]
        return "-".join([*parts, f"s{self.seed}", f"e{self.epochs:g}"]) + ".json"


@dataclass(frozen=True)
class Result:
    """``parameters`` of what was trained; ``refused`` says why a rule could not keep the budget."""

    setting: Setting
    parameters: int = 0
    accuracy: float = 0.0
    seconds: float = 0.0
    refused: str = ""


def keep(result: Result, folder: Path) -> None:
    """Write a run's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    planner.write(json.dumps(asdict(result), indent=2) + "\n", folder / result.setting.file)


def kept(setting: Setting, folder: Path) -> Result | None:
    """The run of that setting, if it has been made."""
    path = folder / setting.file
    if not path.is_file():
        return None
    data = json.loads(path.read_text())
    return Result(**{**data, "setting": Setting(**data["setting"])})


def table(results: Iterable[Result]) -> list[dict[str, object]]:
    """A row for each setting but for the seed: mean and standard deviation in percent."""
    grouped: dict[tuple[object, ...], list[Result]] = {}
    for one in results:
        key = one.setting
        grouped.setdefault((key.task, key.model, key.budget, key.method, key.epochs), []).append(
            one
        )
    rows = []
    for (task, model, budget, method, epochs), runs in grouped.items():
        made = [100 * one.accuracy for one in runs if not one.refused]
        rows.append(
            {
                "task": task,
                "model": model,
                "budget": budget or "100%",
                "method": method,
                "epochs": epochs,
                "parameters": max(one.parameters for one in runs),
                "accuracy": round(statistics.mean(made), 2) if made else None,
                "deviation": round(statistics.stdev(made), 2) if len(made) > 1 else None,
                "seeds": len(made),
                "refused": next((one.refused for one in runs if one.refused), ""),
            }
        )
    return rows


def text(rows: list[dict[str, object]]) -> str:
    """The table as Markdown."""
    lines = ["| task | model | budget | method | parameters | accuracy | seeds |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        spread = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
        value = "does not fit" if row["accuracy"] is None else f"{row['accuracy']:.2f} %{spread}"
        count = "-" if row["accuracy"] is None else f"{row['parameters']:,}"
        cells = (
            row["task"],
            row["model"],
            row["budget"],
            row["method"],
            count,
            value,
            row["seeds"],
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Accuracy against parameters, a line a method, a page of its own."""
    import plotly.graph_objects as go

    figure = go.Figure()
    lines: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        if row["accuracy"] is not None:
            lines.setdefault(f"{row['task']} {row['model']} {row['method']}", []).append(row)
    for name, points in lines.items():
        points.sort(key=lambda row: row["parameters"])
        figure.add_scatter(
            x=[row["parameters"] for row in points],
            y=[row["accuracy"] for row in points],
            error_y={"array": [row["deviation"] or 0.0 for row in points]},
            mode="lines+markers",
            name=name,
        )
    figure.update_xaxes(type="log", title="trainable parameters")
    figure.update_yaxes(title="test accuracy, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)
