"""``python -m planner`` is the ``npas`` command."""

# In a checkout planner.app finds cli.py through its path, which a type checker does not follow.
from planner.app.cli import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    main()
