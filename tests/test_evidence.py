from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import site_lists
from planner.evidence import HEIGHTS, STD_WINDOW, shape_evidence, sigma
from planner.ir import CandidateGroup


def groups_of(sites):
    return {frozenset(group.members): group for group in shape_evidence(sites).groups}


def test_every_class_stands_alone_and_all_of_one_deviation_stand_together():
    sites = site_lists.bert(2)
    groups = groups_of(sites)
    shareable = [site for site in sites if site.kept is None]
    assert frozenset(site.name for site in shareable) in groups
    for site in shareable:
        alike = [other.name for other in shareable if other.shape == site.shape]
        if site.owner == "Linear" and site.shape[0] == site.shape[1]:
            assert len(alike) == 8
        assert groups[frozenset(alike)].dissimilarity == (0.0,) * len(alike)


def test_kept_and_frozen_sites_are_in_no_group():
    sites = [replace(site_lists.weight("frozen", (64, 64), 0.1), trainable=False)]
    sites += site_lists.wide_resnet()
    members = {name for group in shape_evidence(sites).groups for name in group.members}
    assert members == {site.name for site in sites if site.trainable and site.kept is None}


def test_a_class_is_in_few_groups():
    for sites in (site_lists.dense_net(), site_lists.bert(), site_lists.wide_resnet()):
        counts = Counter(name for group in shape_evidence(sites).groups for name in group.members)
        assert max(counts.values()) <= len(HEIGHTS) + 2


@pytest.mark.parametrize(
    "sites",
    [site_lists.wide_resnet(), site_lists.dense_net(), site_lists.bert(2, embedding_std=1.0)],
)
def test_standard_deviations_within_a_group_span_a_window(sites):
    std_of = {site.name: sigma(site) for site in sites}
    groups = shape_evidence(sites).groups
    spans = [
        max(std_of[name] for name in group.members) / min(std_of[name] for name in group.members)
        for group in groups
    ]
    assert max(spans) <= STD_WINDOW * 1.001
    assert max(len(group.members) for group in groups) > 10


def test_unlike_sites_cost_more():
    groups = groups_of(site_lists.bert())
    whole = max(groups.values(), key=lambda group: len(group.members))
    unlike = dict(zip(whole.members, whole.dissimilarity, strict=True))
    # Linears are the bulk, embeddings differ from them in kind, size and aspect.
    assert unlike["0.query"] == unlike["1.query"] > 0
    assert unlike["positions"] > 2 * unlike["0.query"]
    assert unlike["words"] > 2 * unlike["0.query"]


def test_dtypes_never_mix():
    sites = [
        site_lists.weight(f"{dtype}{index}", (32, 32), 0.1, dtype=dtype)
        for dtype in ("float32", "bfloat16")
        for index in range(3)
    ]
    for group in shape_evidence(sites).groups:
        assert len({name[:5] for name in group.members}) == 1


def test_names_do_not_matter():
    sites = site_lists.dense_net((3, 4))
    renamed = [replace(site, name=f"x{index}") for index, site in enumerate(sites)]
    name_of = {old.name: new.name for old, new in zip(sites, renamed, strict=True)}
    assert shape_evidence(renamed).groups == tuple(
        CandidateGroup(g.name, tuple(name_of[name] for name in g.members), g.dissimilarity)
        for g in shape_evidence(sites).groups
    )


def test_nothing_to_share():
    assert shape_evidence([]).groups == ()
    assert shape_evidence([site_lists.vector("bias", 8)]).groups == ()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(1, 64), st.sampled_from((0.0, 0.02, 0.1, 1.0))),
        min_size=1,
        max_size=12,
    )
)
def test_dissimilarities_are_shares_and_groups_are_distinct(shapes):
    sites = [
        site_lists.weight(f"w{index}", (rows, columns), std)
        for index, (rows, columns, std) in enumerate(shapes)
    ]
    evidence = shape_evidence(sites)
    assert evidence == shape_evidence(sites)
    assert len({group.members for group in evidence.groups}) == len(evidence.groups)
    assert len({group.name for group in evidence.groups}) == len(evidence.groups)
    for group in evidence.groups:
        assert all(0 <= value <= 1 for value in group.dissimilarity)
        assert len(group.members) == len(set(group.members)) == len(group.dissimilarity)
