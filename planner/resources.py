"""Where the files that come with the package are."""

from __future__ import annotations

from pathlib import Path


def template_root() -> Path:
    """The folder of the Jinja templates, which a wheel holds inside the package.

    In a checkout, and so in an editable install, it is ``templates/`` beside the package.
    """
    package = Path(__file__).parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"
