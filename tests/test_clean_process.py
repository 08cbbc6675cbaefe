"""Emitted files need torch alone, and a plan is emitted without the model or its library."""

import pytest

import planner
from emitted import ROOT, run_clean
from models import MODELS

FORBIDDEN = ("planner", "torchvision", "networkx", "ortools", "jinja2", "sklearn", "numpy")

USE = """
import importlib.util
import io

import torch

torch.set_num_threads(1)
torch.manual_seed(0)
spec = importlib.util.spec_from_file_location("emitted_alone", {path!r})
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)

model = module.build()
assert sum(one.numel() for one in model.parameters()) == module.PLAN["parameters"]
inputs = {inputs}
output = model.train()(inputs)
assert tuple(output.shape) == {shape}, output.shape
output.square().mean().backward()
assert all(one.grad is not None for one in model.parameters())

file = io.BytesIO()
torch.save(model.state_dict(), file)
file.seek(0)
again = module.build()
again.load_state_dict(torch.load(file, weights_only=True), strict=True)
with torch.no_grad():
    assert torch.equal(again.eval()(inputs), model.eval()(inputs))
loaded = {{name.partition(".")[0] for name, module in sys.modules.items() if module}}
assert not loaded & set({forbidden!r}), loaded
print("done")
"""

EMIT = """
import sys

sys.path.insert(0, {root!r})
import planner

with open({path!r}) as file:
    text = file.read()
source = planner.emit(planner.Plan.from_json(text))
libraries = {{"torchvision", "timm", "transformers", "ortools", "sklearn"}}
loaded = {{name.partition(".")[0] for name, module in sys.modules.items() if module}}
assert not loaded & libraries, loaded & libraries
assert not [name for name in loaded if name.startswith("npas_model_")]
sys.stdout.write(source)
"""


@pytest.mark.parametrize(
    ("name", "budget"), [("wrn-16-4", "10%"), ("transformer_lm", "50%"), ("lstm_lm", "200%")]
)
def test_emitted_files_need_torch_alone(name, budget, plans, tmp_path):
    plan = plans(name, budget)
    path = tmp_path / "alone.py"
    path.write_text(planner.emit(plan))
    (shape,) = (one.shape for one in plan.program.example_outputs)
    (example,) = plan.program.example_inputs
    inputs = (
        f"torch.randint({MODELS[name].tokens}, {example.shape})"
        if MODELS[name].tokens
        else f"torch.randn({example.shape})"
    )
    script = USE.format(path=str(path), inputs=inputs, shape=shape, forbidden=FORBIDDEN)
    # PyTorch itself looks for NumPy and does without.
    done = run_clean(script, *FORBIDDEN, cwd=tmp_path)
    assert (done.status, done.output) == (0, "done\n"), done.messages


@pytest.mark.parametrize("name", ["efficientnet_b0", "mlp"])
def test_plans_are_emitted_without_the_models_library(name, plans, tmp_path):
    plan = plans(name, "10%")
    path = tmp_path / "model.plan.json"
    path.write_text(plan.to_json())
    script = EMIT.format(path=str(path), root=str(ROOT))
    done = run_clean(script, "torchvision", "timm", "transformers", cwd=tmp_path)
    assert done.status == 0, done.messages
    assert done.output == planner.emit(plan)
