"""Filters in embedding space, each against the plainest statement of its method."""

import numpy as np
import pytest

from index.frechet import frechet, moments


def test_frechet_of_what_is_known():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(90, 6)), rng.normal(1, 2, size=(4, 6))  # b: fewer rows than dimensions
    (ma, ca), (mb, cb) = moments(a), moments(b)
    np.testing.assert_allclose(ca, np.cov(a.T))
    eigenvalues = np.linalg.eigvals(ca @ cb).astype(complex)
    plain = ((ma - mb) ** 2).sum() + np.trace(ca + cb) - 2 * np.sqrt(eigenvalues).real.sum()
    assert frechet(ma, ca, mb, cb) == pytest.approx(plain, abs=1e-5)
    assert frechet(mb, cb, ma, ca) == pytest.approx(plain, abs=1e-5)
    assert frechet(ma, ca, ma, ca) == pytest.approx(0, abs=1e-9)
    zero, one = np.zeros(6), np.eye(6)
    assert frechet(zero, one, zero + 2, 4 * one) == pytest.approx(6 * (4 + 1 + 4 - 4))
    assert moments(a[:1])[1].any() == np.False_
    with pytest.raises(ValueError, match="no row"):
        moments(a[:0])
