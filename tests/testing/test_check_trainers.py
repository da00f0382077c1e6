"""`check_trainer` lets the good ones pass, and names what each bad one does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill import Example, TrainPlan, TrainResult
from distill.testing import check_trainer, run_checks, trainer_checks


class Plain:
    """Gradient descent on whole batches; the bad ones below differ by one thing."""

    def train(self, job, on_log):
        import torch

        rows = [{"input_ids": row.input_ids, "labels": row.labels} for row in job.examples]
        optimizer = torch.optim.SGD(job.model.parameters(), lr=job.learning_rate)
        losses = []
        for step in range(1, int(job.epochs) + 1):
            loss = self.loss(job, rows)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            on_log({"step": step, "loss": losses[-1], "learning_rate": job.learning_rate})
        return TrainResult(len(losses), sum(losses) / len(losses))

    def loss(self, job, rows):
        return job.model(**job.collate(rows)).loss


class IgnoresLabels(Plain):
    def train(self, job, on_log):
        rows = [Example(row.input_ids, list(row.input_ids), row.id) for row in job.examples]
        return super().train(replace(job, examples=rows), on_log)


class ShiftsLabelsItself(Plain):
    def loss(self, job, rows):
        return super().loss(job, [{**row, "labels": [*row["labels"][1:], -100]} for row in rows])


class Prints(Plain):
    def train(self, job, on_log):
        print("training!")
        return super().train(job, on_log)


class ReturnsNothing(Plain):
    def train(self, job, on_log):
        super().train(job, on_log)


class LogsNothing(Plain):
    def train(self, job, on_log):
        return super().train(job, lambda row: None)


class TrainsACopy(Plain):
    def train(self, job, on_log):
        import copy

        return super().train(replace(job, model=copy.deepcopy(job.model)), on_log)


class BreaksWeights(Plain):
    def train(self, job, on_log):
        result = super().train(job, on_log)
        next(job.model.parameters()).data.fill_(float("nan"))
        return result


class Unseeded(Plain):
    runs = 0

    def train(self, job, on_log):
        Unseeded.runs += 1
        return super().train(replace(job, learning_rate=job.learning_rate * Unseeded.runs), on_log)


class PlansOtherSteps(Plain):
    def plan(self, steps):
        return TrainPlan(steps=steps + 1)


BAD = {
    IgnoresLabels: "take the labels as they are",
    ShiftsLabelsItself: "make batches with job.collate",
    Prints: "it prints 'training!",
    ReturnsNothing: "train() returned a NoneType",
    LogsNothing: "on_log saw the steps [], not 1 to 3",
    TrainsACopy: "train job.model itself",
    BreaksWeights: "the weights hold NaN",
    Unseeded: "seed with job.seed",
    PlansOtherSteps: "plan() names 4 steps, but train() did 3",
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_bad_trainer_is_told_what(bad):
    with pytest.raises(AssertionError) as caught:
        check_trainer(bad)
    assert BAD[bad] in str(caught.value)


def test_losses_tell_labels_apart(tmp_path):
    """The student of the checks finds some tokens much likelier than others: the mean depends on which count."""
    from distill.testing.trainers import _Suite

    suite = _Suite(Plain, True)
    assert abs(suite.masked.before - suite.unmasked.before) > 0.02 * suite.masked.before


def test_a_good_one_passes():
    check_trainer(Plain)


def test_the_built_in_ones_keep_their_contract(manager):
    for spec in manager.trainers:
        check_trainer(lambda spec=spec: spec.build({}))


def test_one_that_means_to_train_nothing():
    check_trainer(TrainsACopy, trains=False)
    statuses = [outcome.status for outcome in run_checks(trainer_checks(TrainsACopy))]
    assert statuses.count("noted") == 1 and "failed" not in statuses
