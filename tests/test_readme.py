"""README's blocks run, and print what it says.

``sh`` and ``python`` blocks must succeed, commands of ``console`` blocks must print the lines below
them. ``python tests/test_readme.py`` writes what they print into README.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from planner.constraints import read_constraints

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"(?ms)^```(?P<kind>\w*)\n(?P<body>.*?)^```$")
MARK = "\x1e"


def run(command, text, folder):
    """What ``command`` prints when it reads ``text``, in ``folder`` with this environment first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        input=text,
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "80", "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def commands(body):
    """The commands of a console block, without their output."""
    return [line[2:] for line in body.splitlines() if line.startswith("$ ")]


def console(body, folder):
    """A console block with the output that its commands have now.

    A command may fail only where the next one asks for its status.
    """
    listed = commands(body)
    script = ""
    for command, following in zip(listed, [*listed[1:], ""], strict=True):
        script += f"{command}\nstatus=$?\nprintf '{MARK}'\n"
        if following == "echo $?":
            script += "(exit $status)\n"
        else:
            script += "[ $status = 0 ] || exit $status\n"
    outputs = run(["bash"], script + "exit 0\n", folder).split(MARK)
    return "".join(f"$ {one}\n{output}" for one, output in zip(listed, outputs, strict=False))


def renewed(text, folder):
    """``text`` with the outputs that its blocks have now."""
    for name in ("tests", "generated"):
        (folder / name).symlink_to(ROOT / name)
    blocks = [(match["kind"], match["body"]) for match in BLOCK.finditer(text)]
    python = "\n".join(body for kind, body in blocks if kind == "python")
    run([sys.executable, "-"], python, folder)

    def renew(match):
        kind, body = match["kind"], match["body"]
        if kind == "sh":
            run(["bash", "-euo", "pipefail"], body, folder)
        elif kind == "console":
            body = console(body, folder)
        return f"```{kind}\n{body}```"

    return BLOCK.sub(renew, text)


def test_blocks_print_what_readme_says(tmp_path):
    text = README.read_text(encoding="utf-8")
    assert renewed(text, tmp_path) == text


def test_every_command_is_run_or_is_one_of_make():
    text = README.read_text(encoding="utf-8")
    kinds = {match["kind"] for match in BLOCK.finditer(text)}
    assert kinds == {"", "sh", "console", "python", "toml"}
    plain = [match["body"] for match in BLOCK.finditer(text) if not match["kind"]]
    assert [body.partition(" ")[0] for body in plain] == ["model", "make"]


def test_constraints_can_be_read(tmp_path):
    (body,) = re.findall(r"(?ms)^```toml\n(.*?)^```$", README.read_text(encoding="utf-8"))
    (tmp_path / "rules.toml").write_text(body)
    read = read_constraints(tmp_path / "rules.toml")
    assert [one.key for one in read] == ["pin", "apart", "max_compression"]


def test_readme_is_short_and_its_targets_exist():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    targets = set(re.findall(r"\bmake ([a-z]+)", text))
    rules = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert {"plan", "test", "check", "bench"} <= targets <= rules


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        README.write_text(renewed(README.read_text(encoding="utf-8"), Path(scratch)))
