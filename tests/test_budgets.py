import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.budgets import parse_budget, parse_bytes, the_limit
from planner.errors import BudgetError

DENSE = 36479194


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10%", 3647919),
        ("0.1x", 3647919),
        ("100%", DENSE),
        ("1X", DENSE),
        ("250 %", 91197985),
        ("18M", 18_000_000),
        ("2.5m", 2_500_000),
        ("1.5B", 1_500_000_000),
        ("1.5G", 1_500_000_000),
        ("12k", 12_000),
        ("2500000", 2_500_000),
        ("2,500,000", 2_500_000),
        (2_500_000, 2_500_000),
        (1e6, 1_000_000),
        ("1e6", 1_000_000),
        ("64MB", 16_000_000),
        ("64 MiB", 16_777_216),
        ("1GB", 250_000_000),
        ("7KB", 1_750),
        ("1.1", 1),
        ("0.29x", 10578966),
    ],
)
def test_accepted_forms(text, expected):
    assert parse_budget(text, DENSE) == expected


def test_bytes_count_in_the_parameters_size():
    assert parse_budget("64MB", DENSE, bytes_per_parameter=2) == 32_000_000


REFUSED = "0 abc -5% nan inf 0% 0.0000001% % 5Q 1.2.3 1e 10%% 1kM e5 1e9999 0.3B% --1 .".split()


@pytest.mark.parametrize(
    "text", [*REFUSED, "", "  ", "3 bytes", 0, -1, True, float("nan"), float("inf")]
)
def test_anything_else_names_the_accepted_forms(text):
    with pytest.raises(BudgetError) as caught:
        parse_budget(text, DENSE)
    assert "10%, 0.1x" in str(caught.value)
    assert "64MB" in str(caught.value)


@given(st.integers(1, 10**6), st.integers(1, 10**12))
def test_percentages_are_exact(hundredths, dense):
    text = f"{hundredths // 100}.{hundredths % 100:02}%"
    exact = hundredths * dense // 10_000
    if exact:
        assert parse_budget(text, dense) == exact


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64MB", 64_000_000), ("1 KiB", 1024), ("1.5kb", 1500), (2048, 2048), ("4096", 4096)],
)
def test_sizes(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["10%", "18M", "0.1x", "a lot", "", True, "9e15", -1])
def test_sizes_that_are_none_name_the_accepted_forms(text):
    with pytest.raises(BudgetError, match="64MB"):
        parse_bytes(text)


def test_bytes_are_parameters_by_their_width():
    gradients = the_limit(None, None, "10MB")
    assert gradients.parameters(DENSE, 4, 999) == 2_500_000
    assert gradients.parameters(DENSE, 2, 999) == 5_000_000
    stored = the_limit(None, 1000, None)
    assert stored.parameters(DENSE, 4, 600) == 100
    assert (gradients.text, stored.text) == ("10MB of gradients", "1000 stored")
    assert the_limit("10%", None, None).parameters(DENSE, 4, 0) == 3647919


def test_bytes_that_leave_no_parameter():
    with pytest.raises(BudgetError, match="1000 are stored besides"):
        the_limit(None, "1KB", None).parameters(DENSE, 4, 1000)
    with pytest.raises(BudgetError, match="takes 4 bytes"):
        the_limit(None, None, 3).parameters(DENSE, 4, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None, None), "none of them"),
        (("10%", "1MB", None), r"budget \(10%\) and target bytes \(1MB\)"),
        ((None, "1MB", "2MB"), r"target bytes \(1MB\) and gradient bytes \(2MB\)"),
        (("10%", "1MB", "2MB"), r"budget \(10%\) and target bytes \(1MB\) and gradient"),
    ],
)
def test_a_budget_is_said_in_one_way(given, said):
    with pytest.raises(BudgetError, match=said):
        the_limit(*given)
