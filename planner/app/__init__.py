"""The command line's package.

Its one module is ``cli.py``: beside this file in an installed wheel, at the top of the repository
in a checkout or an editable install.
"""

from pathlib import Path

if not Path(__file__).with_name("cli.py").exists():
    __path__.append(str(Path(__file__).parents[2]))
