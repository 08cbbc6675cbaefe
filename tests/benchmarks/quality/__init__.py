"""Accuracy against parameters: the planner's plans beside what else a budget buys.

python -m benchmarks.quality --models wrn_16_2 --budgets 10% --seeds 0 --output build/quality
"""
