"""Models fitted side by side are those that hmmlearn fits one after the other."""

import logging

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from finetrace.atlas.markov import Models, Prior, fit, log_likelihood

PRIOR = Prior(probabilities=1.1, variance=0.2, weight=3.0)


def drawn(runs: int, times: int, components: int, states: int, seed: int) -> tuple[np.ndarray, Models]:
    """Courses with as many levels as states, and where the fit of one model starts from."""
    random = np.random.default_rng(seed)
    level = 2 * random.normal(size=(states, components))
    curves = level[np.sort(random.integers(states, size=(runs, times)))] + 0.5 * random.normal(
        size=(runs, times, components))
    onward = np.triu(random.random((states, states)) + 0.1)
    begin = Models(np.full((1, states), 1 / states), (onward / onward.sum(axis=1, keepdims=True))[None],
                   (level + 0.3 * random.normal(size=level.shape))[None], np.ones((1, states, components)))
    return curves, begin


def of_hmmlearn(curves: np.ndarray, begin: Models, rounds: int, tolerance: float) -> GaussianHMM:
    model = GaussianHMM(begin.start.shape[1], "diag", n_iter=rounds, tol=tolerance, init_params="", startprob_prior=1.1,
                        transmat_prior=1.1, covars_prior=0.2, covars_weight=3.0)
    model.startprob_, model.transmat_ = begin.start[0], begin.onward[0]
    model.means_, model.covars_ = begin.means[0], begin.variances[0]
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    return model.fit(curves.reshape(-1, curves.shape[-1]), [curves.shape[1]] * len(curves))


@pytest.mark.parametrize(("runs", "times", "components", "states"), [
    (1, 12, 1, 2), (5, 20, 3, 4), (3, 9, 2, 6), (4, 30, 8, 1)])
def test_every_fold_is_what_hmmlearn_fits(runs: int, times: int, components: int, states: int) -> None:
    curves, begin = drawn(runs, times, components, states, runs)
    kept = np.ones((1, 1)) if runs == 1 else 1 - np.eye(runs)  # each model leaves one run out
    together = Models(*(np.repeat(part, len(kept), axis=0) for part in (begin.start, begin.onward, begin.means,
                                                                        begin.variances)))
    models = fit(curves, kept, together, PRIOR, rounds=15, tolerance=1e-2)
    likelihood = log_likelihood(curves, models)
    for i, chosen in enumerate(kept):
        wanted = of_hmmlearn(curves[chosen > 0], begin, 15, 1e-2)
        for ours, theirs in ((models.start, wanted.startprob_), (models.onward, wanted.transmat_),
                             (models.means, wanted.means_), (models.variances, wanted._covars_)):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-8, atol=1e-12)
        for run, curve in enumerate(curves):
            assert likelihood[i, run] == pytest.approx(wanted.score(curve), rel=1e-10)


def test_what_a_model_cannot_explain_stays_finite() -> None:
    """A course that goes back, in a model that cannot, with states so narrow that all others vanish beside one: where
    ways are less likely than exp(-700) at some time, they are no longer known, which decides nothing here."""
    curves = np.array([[0.0, 0, 50, 50, 0, 0, 50, 50]])[..., None]
    onward = np.array([[[0.9, 0.1], [0.0, 1.0]]])
    models = Models(np.array([[1.0, 0.0]]), onward, np.array([[[0.0], [50.0]]]), np.full((1, 2, 1), 1e-4))
    wanted = GaussianHMM(2, "diag")
    wanted.startprob_, wanted.transmat_ = models.start[0], models.onward[0]
    wanted.means_, wanted.covars_ = models.means[0], models.variances[0]
    assert log_likelihood(curves, models)[0, 0] == pytest.approx(wanted.score(curves[0]), rel=1e-6)
    assert all(np.isfinite(part).all() for part in vars(fit(curves, np.ones((1, 1)), models, PRIOR, rounds=5,
                                                            tolerance=1e-2)).values())
