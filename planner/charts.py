"""Curves as HTML, with plotly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.curves import Curve


def require_plotly() -> None:
    """Raises a PlannerError that says how to install plotly, if it is not there."""
    try:
        import plotly.graph_objects  # noqa: F401
    except ImportError:
        raise PlannerError(
            "a chart needs plotly, which is not installed: pip install 'npas-planner[plotly]', or "
            "leave --html out"
        ) from None


def curve_html(curve: Curve) -> str:
    """A page of its own: objective, compression and seconds by parameters; it loads nothing.

    Raises:
        PlannerError: plotly is not installed.
    """
    require_plotly()
    from plotly.io import to_html
    from plotly.subplots import make_subplots

    points = [point for point in curve.points if point.minimum is None]
    titles = ("objective", "compression (dense / emitted)", "seconds")
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, subplot_titles=titles)
    series = (
        [point.objective for point in points],
        [point.compression for point in points],
        [point.seconds for point in points],
    )
    for row, (title, values) in enumerate(zip(titles, series, strict=True), 1):
        figure.add_scatter(
            x=[point.parameters for point in points],
            y=values,
            mode="lines+markers",
            name=title,
            text=[point.budget for point in points],
            hovertemplate="%{text}: %{y}<extra></extra>",
            row=row,
            col=1,
        )
    for point in curve.points:
        if point.minimum is not None:
            figure.add_vline(x=point.parameters, line_dash="dot", annotation_text="too few")
    figure.update_xaxes(type="log")
    figure.update_xaxes(title_text="budget (parameters)", row=3, col=1)
    # As text: plotly reads some tags in titles.
    name = curve.model.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    figure.update_layout(title=f"{name}: {curve.dense:,} parameters", showlegend=False, height=900)
    page: str = to_html(figure, include_plotlyjs=True, full_html=True, div_id="curve")
    return page
