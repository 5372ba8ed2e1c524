import pytest
import torch
from torch.nn.functional import normalize

from multimodal_zoo.evaluation.ranking import best, inner_products, interval, rank_summary, ranks, recall_at
from multimodal_zoo.evaluation.retrieval import ranks_both_ways


def first_ranks(queries, gallery, *labels, **options):
    return ranks(inner_products(queries, gallery), *labels, **options)


def brute_ranks(queries, gallery, query_labels, gallery_labels):
    found = []
    for query, label in zip(queries, query_labels, strict=True):
        order = (gallery @ query).sort(descending=True, stable=True).indices
        found.append(int((gallery_labels[order] == label).nonzero()[0]))
    return torch.tensor(found)


def random_sets(queries, gallery, width=6, labels=5):
    sets = [normalize(torch.randn(n, width), dim=-1) for n in (queries, gallery)]
    return (
        *sets,
        torch.randint(labels, (queries,)),
        torch.cat([torch.arange(labels), torch.randint(labels, (gallery - labels,))]),
    )


@pytest.mark.parametrize("block", [1, 40, 100, 2**24])
def test_blocks_equal_brute_force(block):
    sets = random_sets(23, 37)
    assert torch.equal(first_ranks(*sets, block=block), brute_ranks(*sets))


def test_ties_keep_gallery_order_so_a_collapsed_model_scores_at_chance():
    same = normalize(torch.ones(10, 4), dim=-1)
    labels = torch.arange(10)
    found = first_ranks(same, same, labels, labels)
    assert torch.equal(found, labels)
    assert recall_at(found, [1])["R@1"] == pytest.approx(0.1)


def test_by_concept_hits_at_least_as_often():
    images, texts = (normalize(torch.randn(30, 4), dim=-1) for _ in range(2))
    scores = {"image_to_text": inner_products(images, texts), "text_to_image": inner_products(texts, images)}
    exact = ranks_both_ways(scores, torch.arange(30))
    concept = ranks_both_ways(scores, torch.arange(30), torch.arange(30) // 3)
    assert all((concept[d] <= exact[d]).all() for d in exact)
    assert any((concept[d] < exact[d]).any() for d in exact)


def test_median_of_an_even_number_is_rounded_down():
    assert rank_summary(torch.tensor([0, 1, 4, 9])) == {"mean_rank": 4.5, "median_rank": 3.0}


def test_the_best_in_blocks():
    queries, gallery, _, _ = random_sets(9, 20)
    values, numbers = best(inner_products(queries, gallery), 3, block=41)
    expected = (queries @ gallery.T).topk(3)
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(numbers, expected.indices)


def test_one_query_one_item():
    one = torch.ones(1, 1)
    assert first_ranks(one, one, torch.tensor([3]), torch.tensor([3])).tolist() == [0]


def test_errors():
    a, b, la, lb = random_sets(4, 6)
    with pytest.raises(ValueError, match="no relevant item"):
        first_ranks(a, b, la + 99, lb)
    with pytest.raises(ValueError, match="0 queries"):
        first_ranks(a[:0], b, la[:0], lb)
    with pytest.raises(ValueError, match="equal length"):
        first_ranks(a, b, la[:2], lb)


def test_interval_contains_the_share_and_shrinks():
    low, high = interval(0.3, 50)
    assert low < 0.3 < high
    assert interval(0.3, 5000)[1] - interval(0.3, 5000)[0] < high - low
    assert interval(0.0, 10)[0] == 0.0
    assert (low, high) == pytest.approx((0.19100, 0.43750), abs=1e-4)


def test_an_interval_holds_its_share_whatever_is_rounded():
    for count in range(1, 60):
        for hits in range(count + 1):
            low, high = interval(hits / count, count)
            assert 0 <= low <= hits / count <= high <= 1
