from __future__ import annotations

import pytest
import torch

from prichexy_train.measures.retrieval import Found, retrieve


def test_a_worked_example() -> None:
    # A patient with three other images; found at ranks 1, 3 and 4.
    likeness = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]])
    gallery = torch.tensor([1, 2, 1, 1, 2])
    found = retrieve(likeness, torch.tensor([1]), gallery, torch.zeros(1, 5, dtype=torch.bool))
    assert found.rank1.tolist() == [1.0]
    assert found.average_precision.tolist() == pytest.approx([(1 + 2 / 3) / 3])
    assert found.chance.tolist() == pytest.approx([3 / 5])


def test_what_is_left_out_is_neither_found_nor_counted() -> None:
    likeness = torch.tensor([[1.0, 0.2, 0.9]])
    gallery = torch.tensor([1, 1, 2])
    found = retrieve(likeness, torch.tensor([1]), gallery, torch.tensor([[True, False, False]]))
    assert found.rank1.tolist() == [0.0]
    assert found.average_precision.tolist() == [0.0]
    assert found.chance.tolist() == [0.5]
    assert likeness[0, 0] == 1.0, "the caller's likenesses are changed"


def test_a_query_without_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="no other image"):
        own = torch.tensor([[True, False]])
        retrieve(torch.ones(1, 2), torch.tensor([1]), torch.tensor([1, 2]), own)


def test_it_agrees_with_the_definition_and_with_blocks() -> None:
    source = torch.Generator().manual_seed(3)
    gallery = torch.randint(6, (40,), generator=source)
    likeness = torch.rand(20, 40, generator=source)
    own = torch.eye(20, 40, dtype=torch.bool)
    queries = gallery[:20]
    found = retrieve(likeness, queries, gallery, own)
    for row in range(20):
        order = [k for k in likeness[row].argsort(descending=True).tolist() if k != row]
        hits = [int(gallery[k] == queries[row]) for k in order]
        relevant = sum(hits)
        precision = [sum(hits[: k + 1]) / (k + 1) * hits[k] for k in range(relevant)]
        assert found.rank1[row] == hits[0]
        assert float(found.average_precision[row]) == pytest.approx(sum(precision) / relevant)
    halves = [
        retrieve(likeness[part], queries[part], gallery, own[part])
        for part in (slice(0, 7), slice(7, 20))
    ]
    assert torch.equal(Found.joined(halves).average_precision, found.average_precision)
