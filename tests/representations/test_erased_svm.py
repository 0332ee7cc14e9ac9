"""A linear support vector machine finds in erased features what it finds without features: the other half of the guarantee."""

from __future__ import annotations

import numpy as np
import pytest
from test_erasers import draw

from genai_core.representations.erasers import fit_leace
from genai_core.representations.moments import measure


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_linear_support_vector_machine_finds_nothing(k: int) -> None:
    svm = pytest.importorskip("sklearn.svm")
    x, z = draw(d=16, k=k)
    labels = z.argmax(1).numpy()
    largest, right = {}, {}
    for name, features in (("before", x), ("after", fit_leace(measure(x, z))(x))):
        centred = (features - features.mean(0)).numpy()
        machine = svm.LinearSVC(C=1.0, tol=1e-12, max_iter=20_000, dual=False).fit(centred, labels)
        largest[name] = float(np.abs(machine.coef_).max())
        right[name] = float((machine.predict(centred) == labels).mean())
    assert largest["before"] > 0.01
    assert largest["after"] < 1e-6
    assert right["before"] > right["after"] + 0.1
    assert right["after"] == pytest.approx(float(np.bincount(labels).max() / len(labels)), abs=1e-12)
