"""The built-in losses: which gradient they have on average, over every token that the teacher could have written."""

from __future__ import annotations

import math

import pytest
import torch

from distill import SoftBatch, UsageError
from distill.builtin.losses.chunks import binary_divergence
from distill.builtin.losses.soft_labels import make_targets

V, K = 12, 4


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return (torch.randn(V) * 2).softmax(-1).double()


@pytest.fixture
def student():
    torch.manual_seed(1)
    return torch.randn(V).double()


def soft_batch(probabilities, count: int, *, k: int = K, plain: bool = True) -> SoftBatch:
    """The same likeliest tokens at some positions, all of them exact."""
    top = probabilities.topk(k)
    return SoftBatch(
        torch.ones(count, dtype=torch.int8),
        torch.ones(count, dtype=torch.int16),
        torch.zeros(count),
        top.indices.int().expand(count, k).clone(),
        top.values.log().float().expand(count, k).clone(),
        torch.full((count,), plain),
    )


def full_gradient(student, teacher):
    """Of the cross-entropy towards the teacher's whole distribution."""
    return student.softmax(-1) - teacher


def expected_gradient(loss, student, teacher, soft):
    """The mean gradient over every token that the teacher may write, weighted by how likely it is to."""
    logits = student.float().expand(V, V).clone().requires_grad_()
    summed = loss.sum(logits * 1.0, torch.arange(V), soft)
    (gradient,) = torch.autograd.grad(summed, logits)
    return (gradient.double() * teacher[:, None]).sum(0)


def test_soft_labels_have_the_full_gradient_on_average(manager, student, teacher):
    loss = manager.losses.build("soft-labels", {})
    for k in (1, 2, K, V - 1):
        bias = expected_gradient(loss, student, teacher, soft_batch(teacher, V, k=k)) - full_gradient(student, teacher)
        assert bias.abs().max() < 1e-6, k


def test_cross_entropy_has_it_too(manager, student, teacher):
    loss = manager.losses.build("cross-entropy")
    assert (expected_gradient(loss, student, teacher, None) - full_gradient(student, teacher)).abs().max() < 1e-6


class RenormalisedEverywhere:
    """What is often done: the likeliest tokens are divided by their mass, whatever was written."""

    def sum(self, logits, labels, soft):
        weights = soft.logprobs.softmax(-1)
        return -(weights * logits.log_softmax(-1).gather(1, soft.ids.long())).sum()


def test_renormalised_everywhere_is_biased(student, teacher):
    bias = expected_gradient(RenormalisedEverywhere(), student, teacher, soft_batch(teacher, V))
    assert (bias - full_gradient(student, teacher)).abs().max() > 1e-2


def test_soft_labels_vary_less_than_the_written_token(manager, student, teacher):
    def variance(loss, soft):
        logits = student.float().expand(V, V).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss.sum(logits * 1.0, torch.arange(V), soft), logits)
        return ((gradient.double() - full_gradient(student, teacher)).square().sum(1) * teacher).sum()

    hard = variance(manager.losses.build("cross-entropy"), None)
    variances = [variance(manager.losses.build("soft-labels"), soft_batch(teacher, V, k=k)) for k in (2, 4, 8, V)]
    assert all(one < hard / 2 for one in variances[1:]) and variances == sorted(variances, reverse=True)
    assert variances[-1] < 1e-9


def test_greedy_answers_get_the_divergence_with_the_rest_as_one_category(manager, student, teacher):
    soft = soft_batch(teacher, 1, plain=False)
    logits = student.float()[None].clone().requires_grad_()
    value = manager.losses.build("soft-labels").sum(logits * 1.0, torch.tensor([0]), soft)
    top = teacher.topk(K)
    p = student.softmax(-1)[top.indices]
    q = top.values
    wanted = (q * (q / p).log()).sum() + (1 - q.sum()) * ((1 - q.sum()) / (1 - p.sum())).log()
    assert value.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert value.item() <= (teacher * (teacher / student.softmax(-1)).log()).sum()  # a bound of the full divergence
    same = manager.losses.build("soft-labels").sum(teacher.log().float()[None], torch.tensor([0]), soft)
    assert same.item() == pytest.approx(0, abs=1e-5)


def test_a_divergence_is_never_negative(manager):
    torch.manual_seed(2)
    for n in range(200):
        q = (torch.randn(V) * (1 + n % 7)).softmax(-1)
        soft = soft_batch(q, 1, k=1 + n % V, plain=False)
        soft.logprobs[:] = soft.logprobs.half().float()  # as rows keep them
        value = manager.losses.build("soft-labels").sum(torch.randn(1, V) * 3, torch.tensor([0]), soft)
        assert value.item() >= -1e-3


def test_the_target_is_chosen_by_how_answers_were_made(manager, student, teacher):
    soft = soft_batch(teacher, 2)
    soft.plain[1] = False
    label = torch.tensor([int(teacher.argmin())] * 2)  # not among the likeliest
    _, weights, rest = make_targets(label, soft, soft.plain)
    assert weights[0].tolist() == [1, 0, 0, 0] and rest[0] == 0
    assert weights[1].sum() + rest[1] == pytest.approx(1, abs=1e-6) and rest[1] > 0
    explain = manager.losses.build("soft-labels").explain
    assert "unbiased: all 3" in explain(3, 3) and "rest: none" in explain(3, 0) and "unbiased for 2" in explain(3, 2)
    assert "target=rest for all" in manager.losses.build("soft-labels", {"target": "rest"}).explain(3, 3)


def test_a_position_without_a_teacher_is_pulled_towards_its_token(manager, student, teacher):
    hard = manager.losses.build("cross-entropy")
    soft = soft_batch(teacher, 3)
    soft.ids[:], soft.logprobs[:] = -1, math.nan
    labels = torch.tensor([3, 1, 7])
    for plain in (True, False):
        soft.plain[:] = plain
        for options in ({}, {"mix": 0.3}):
            one, other = (student.float().expand(3, V).clone().requires_grad_() for _ in range(2))
            value = manager.losses.build("soft-labels", options).sum(one * 1.0, labels, soft)
            wanted = hard.sum(other * 1.0, labels, None)
            assert value.item() == pytest.approx(wanted.item(), abs=1e-5)
            torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v, x in ((value, one), (wanted, other))))


@pytest.mark.parametrize("plain", [True, False])
def test_mix_adds_the_written_token(manager, student, teacher, plain):
    soft, labels = soft_batch(teacher, V, plain=plain), torch.arange(V)

    def gradient(name, **options):
        logits = student.float().expand(V, V).clone().requires_grad_()
        return torch.autograd.grad(manager.losses.build(name, options).sum(logits * 1.0, labels, soft), logits)[0]

    wanted = 0.75 * gradient("soft-labels") + 0.25 * gradient("cross-entropy")
    torch.testing.assert_close(gradient("soft-labels", mix=0.25), wanted, atol=1e-6, rtol=1e-5)


def chunk_batch(sizes, logprobs) -> SoftBatch:
    count = len(sizes)
    return SoftBatch(
        torch.zeros(count, dtype=torch.int8),
        torch.tensor(sizes, dtype=torch.int16),
        torch.tensor(logprobs),
        torch.full((count, 0), -1, dtype=torch.int32),
        torch.zeros((count, 0)),
        torch.zeros(count, dtype=torch.bool),
    )


def test_chunks_of_one_token_are_the_per_token_case(manager):
    """Each token comes, or it does not: the binary cross-entropy of the two models' probabilities of it."""
    torch.manual_seed(3)
    logits = torch.randn(5, V, dtype=torch.float64).float().requires_grad_()
    labels = torch.tensor([0, 4, 2, 7, 1])
    told = torch.tensor([-0.1, -2.0, -0.5, -4.0, -1.0])
    value = manager.losses.build("chunks", {"temperature": 1}).sum(
        logits * 1.0, labels, chunk_batch([1] * 5, told.tolist())
    )
    p, q = logits.softmax(-1)[torch.arange(5), labels], told.exp()
    wanted = torch.nn.functional.binary_cross_entropy(p, q, reduction="sum")
    entropy = torch.nn.functional.binary_cross_entropy(q, q, reduction="sum")
    assert value.item() == pytest.approx((wanted - entropy).item(), abs=1e-5)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (value, wanted)))


def test_a_chunk_is_the_product_of_its_tokens(manager):
    torch.manual_seed(4)
    logits = torch.randn(5, V).requires_grad_()
    labels = torch.tensor([0, 4, 2, 7, 1])
    batch = chunk_batch([0, 2, 0, 0, 3], [math.nan, -3.0, math.nan, math.nan, -5.0])
    value = manager.losses.build("chunks", {"temperature": 10}).sum(logits * 1.0, labels, batch)
    own = logits.log_softmax(-1)[torch.arange(5), labels]
    wanted = binary_divergence(torch.tensor([-3.0, -5.0]), torch.stack([own[:2].sum(), own[2:].sum()]), 10.0).sum()
    assert value.item() == pytest.approx(wanted.item(), abs=1e-5)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (value, wanted)))


def test_what_is_in_no_chunk_is_pulled_towards_its_token(manager):
    torch.manual_seed(5)
    logits, labels = torch.randn(3, V), torch.tensor([1, 2, 3])
    loss = manager.losses.build("chunks")
    hard = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert loss.sum(logits.clone(), labels, chunk_batch([0, 0, 0], [math.nan] * 3)).item() == pytest.approx(hard.item())
    assert loss.sum(logits.clone(), labels, chunk_batch([0, 1, 0], [math.nan] * 3)).item() == pytest.approx(hard.item())
    mixed = manager.losses.build("chunks", {"mix": 1}).sum(
        logits.clone(), labels, chunk_batch([0, 2, 1], [0, -1.0, -1.0])
    )
    assert mixed.item() == pytest.approx(hard.item())


def test_likelihoods_are_clamped():
    extreme = torch.tensor([0.0, -1e-12, -1e4, -80.0], requires_grad=True)
    for temperature in (1.0, 100.0, 1e6):
        for told in (0.0, -1e-9, -50.0, -1e4):
            value = binary_divergence(torch.full((4,), told), extreme, temperature)
            (gradient,) = torch.autograd.grad(value.sum(), extreme)
            assert torch.isfinite(value).all() and torch.isfinite(gradient).all()
            assert (value > -1e-3).all()


def test_high_temperatures_compare_the_logarithms():
    """The derivative at the student's log-likelihood s is t / s - 1: none where it is the teacher's."""
    s = torch.tensor([-1.0, -2.0, -4.0, -30.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(binary_divergence(torch.full((4,), -2.0), s, 1e5).sum(), s)
    torch.testing.assert_close(gradient, -2.0 / s.detach() - 1, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name, options", [
    ("soft-labels", {"mix": 2}), ("soft-labels", {"target": "best"}), ("chunks", {"mix": -1}),
    ("chunks", {"temperature": 0.5}), ("soft-labels", {"k": 3}), ("softlabels", {}),
])  # fmt: skip
def test_options_are_checked(manager, name, options):
    with pytest.raises(UsageError):
        manager.losses.build(name, options)
